#pragma once
// The margin heads by their names in YAML, with the settings of their Config, for any device. A
// file of the program that includes the kernels of a device calls register_heads of it; heads.hpp
// does so for the processor. FC and ArcMargin are known without it.

#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/config/head_registry.hpp>
#include <kindred/data/image_list.hpp>
#include <kindred/head/ada_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/combined_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/curricular_margin.hpp>
#include <kindred/head/dynamic_margin.hpp>
#include <kindred/head/elastic_margin.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/norm_face.hpp>
#include <kindred/head/sphere_face.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>

namespace kindred::config::detail {

/// The library's margin heads, as entries of the registry.
template <class Device>
class MarginHeads {
  using MakeHead = MakeHeadOn<Device>;
  using AnyHead = AnyHeadOn<Device>;

 public:
  static std::map<std::string, MakeHead> all() {
    namespace h = kindred::head;
    std::map<std::string, MakeHead> table;
    add<h::AdaMargin>(table, field("embedding_size", &h::AdaMargin::Config::embedding_size),
                      field("class_num", &h::AdaMargin::Config::class_num),
                      field("m", &h::AdaMargin::Config::m), field("h", &h::AdaMargin::Config::h),
                      field("s", &h::AdaMargin::Config::s),
                      field("t_alpha", &h::AdaMargin::Config::t_alpha));
    add_sized<h::CircleMargin>(table, required("margin", &h::CircleMargin::Config::margin),
                               required("scale", &h::CircleMargin::Config::scale));
    add_sized<h::CombinedMargin>(table, field("m1", &h::CombinedMargin::Config::m1),
                                 field("m2", &h::CombinedMargin::Config::m2),
                                 field("m3", &h::CombinedMargin::Config::m3),
                                 field("scale", &h::CombinedMargin::Config::scale),
                                 field("gradient", &h::CombinedMargin::Config::gradient));
    add_sized<h::CosMargin>(table, field("margin", &h::CosMargin::Config::margin),
                            field("scale", &h::CosMargin::Config::scale));
    add_sized<h::CurricularMargin>(table, field("margin", &h::CurricularMargin::Config::margin),
                                   field("scale", &h::CurricularMargin::Config::scale),
                                   field("t_alpha", &h::CurricularMargin::Config::t_alpha));
    add_sized<h::DynamicMargin>(table, read_class_counts, field("a", &h::DynamicMargin::Config::a),
                                field("lambda", &h::DynamicMargin::Config::lambda),
                                field("b", &h::DynamicMargin::Config::b),
                                field("sub_centers", &h::DynamicMargin::Config::sub_centers),
                                field("scale", &h::DynamicMargin::Config::scale));
    add_sized<h::ElasticMargin>(table, field("margin", &h::ElasticMargin::Config::margin),
                                field("sigma", &h::ElasticMargin::Config::sigma),
                                field("scale", &h::ElasticMargin::Config::scale),
                                field("form", &h::ElasticMargin::Config::form),
                                field("plus", &h::ElasticMargin::Config::plus));
    add_sized<h::MagMargin>(table, field("l_a", &h::MagMargin::Config::l_a),
                            field("u_a", &h::MagMargin::Config::u_a),
                            field("l_margin", &h::MagMargin::Config::l_margin),
                            field("u_margin", &h::MagMargin::Config::u_margin),
                            field("scale", &h::MagMargin::Config::scale),
                            field("easy_margin", &h::MagMargin::Config::easy_margin));
    add_sized<h::NormFace>(table, field("scale", &h::NormFace::Config::scale));
    add_sized<h::SphereFace>(table, field("margin", &h::SphereFace::Config::margin),
                             field("scale", &h::SphereFace::Config::scale),
                             field("gradient", &h::SphereFace::Config::gradient));
    add_sized<h::SubCenterArcMargin>(
        table, field("sub_centers", &h::SubCenterArcMargin::Config::sub_centers),
        field("margin", &h::SubCenterArcMargin::Config::margin),
        field("scale", &h::SubCenterArcMargin::Config::scale),
        field("easy_margin", &h::SubCenterArcMargin::Config::easy_margin));
    return table;
  }

 private:
  /// "class_counts: [n, ...]", or counted in an image list: "cls_label_path: file", with delimiter
  /// and relabel as the data set has them.
  static void read_class_counts(const Section& s, head::DynamicMargin::Config& config) {
    if (!s.has("cls_label_path")) {
      config.class_counts = s.get<std::vector<std::int64_t>>("class_counts");
      return;
    }
    data::ImageList::Config list;
    list.cls_label_path = s.get<std::string>("cls_label_path");
    list.delimiter = s.get("delimiter", list.delimiter);
    list.relabel = s.get("relabel", list.relabel);
    config.class_counts =
        head::DynamicMargin::count(data::ImageList(list).labels(), config.class_num);
  }

  /// A key of the file and the setting it gives.
  template <class Config, class T>
  struct Field {
    const char* key;
    T Config::*setting;
    bool must;
    void operator()(const Section& s, Config& config) const {
      if (must && !s.has(key)) throw ConfigError(text(s.where(key), " is missing"));
      config.*setting = value(s, key, config.*setting);
    }
  };
  template <class Config, class T>
  static Field<Config, T> field(const char* key, T Config::*setting) {
    return {key, setting, false};
  }
  template <class Config, class T>
  static Field<Config, T> required(const char* key, T Config::*setting) {
    return {key, setting, true};
  }

  template <class T>
  static T value(const Section& s, const char* key, const T& fallback) {
    if constexpr (std::is_same_v<T, GradientMode>)
      return named(s, key, fallback, {GradientMode::exact, GradientMode::straight_through});
    else if constexpr (std::is_same_v<T, MarginForm>)
      return named(s, key, fallback, {MarginForm::angle, MarginForm::cosine});
    else
      return s.get<T>(key, fallback);
  }

  template <class Head, class... Fields>
  static void add(std::map<std::string, MakeHead>& table, const Fields&... fields) {
    table[Head::name()] = [fields...](const Section& s) {
      typename Head::Config config;
      (fields(s, config), ...);
      config.update_in_tile = s.get("update_in_tile", config.update_in_tile);
      return AnyHead::template component<Head>(config);
    };
  }
  /// A head whose sizes must be given.
  template <class Head, class... Fields>
  static void add_sized(std::map<std::string, MakeHead>& table, const Fields&... fields) {
    using Config = typename Head::Config;
    add<Head>(table, required("embedding_size", &Config::embedding_size),
              required("class_num", &Config::class_num), fields...);
  }
};

}  // namespace kindred::config::detail

namespace kindred::config {

/// Registers the library's margin heads on a device. Returns true, to initialise a variable.
template <class Device>
bool register_heads() {
  for (auto& [name, make] : detail::MarginHeads<Device>::all())
    register_head<Device>(name, std::move(make));
  return true;
}

}  // namespace kindred::config
