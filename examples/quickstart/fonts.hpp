#pragma once
// The typefaces of this machine (fontconfig) and pictures of their characters (FreeType).

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <fontconfig/fontconfig.h>
#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_BBOX_H
#include FT_OUTLINE_H

#include <kindred/core/error.hpp>

namespace kindred::quickstart {

/// A grey picture, size x size bytes, row by row: 0 is paper, 255 is full ink.
using Picture = std::vector<std::uint8_t>;

/// One typeface: a family in one style and weight, found as one index of one font file.
struct Face {
  std::string file;
  int index = 0;
  std::string family, style;
};

/// CJK unified ideographs and their extensions A-H. The compatibility ideographs and the radicals
/// are left out on purpose: they look like an ideograph of these blocks under a second number,
/// and would be two classes with one look.
inline constexpr std::array<std::pair<char32_t, char32_t>, 4> ideograph_blocks{
    {{0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0x20000, 0x2EBEF}, {0x30000, 0x323AF}}};

inline bool is_ideograph(char32_t c) {
  return std::ranges::any_of(ideograph_blocks,
                             [c](auto block) { return block.first <= c && c <= block.second; });
}

/// Every face with at least 1,000 CJK ideographs among the fonts that fontconfig knows, or among
/// those in `folder`; in the order of (file, index), a file with several names (links) once.
/// Throws FileError for a folder that does not exist.
inline std::vector<Face> find_faces(const std::optional<std::string>& folder = std::nullopt) {
  if (folder && !std::filesystem::is_directory(*folder))
    throw FileError(text("no folder ", *folder, " with fonts"));
  using Config = std::unique_ptr<FcConfig, decltype(&FcConfigDestroy)>;
  const Config config(folder ? FcConfigCreate() : FcInitLoadConfigAndFonts(), FcConfigDestroy);
  if (!config) throw FileError("fontconfig cannot read its configuration");
  if (folder)
    FcConfigAppFontAddDir(config.get(), reinterpret_cast<const FcChar8*>(folder->c_str()));

  const std::unique_ptr<FcPattern, decltype(&FcPatternDestroy)> any(FcPatternCreate(),
                                                                    FcPatternDestroy);
  const std::unique_ptr<FcObjectSet, decltype(&FcObjectSetDestroy)> wanted(
      FcObjectSetBuild(FC_FILE, FC_INDEX, FC_FAMILY, FC_STYLE, FC_CHARSET, FC_VARIABLE, FC_OUTLINE,
                       nullptr),
      FcObjectSetDestroy);
  const std::unique_ptr<FcFontSet, decltype(&FcFontSetDestroy)> fonts(
      FcFontList(config.get(), any.get(), wanted.get()), FcFontSetDestroy);
  const std::unique_ptr<FcCharSet, decltype(&FcCharSetDestroy)> common(FcCharSetCreate(),
                                                                       FcCharSetDestroy);
  for (char32_t c = 0x4E00; c <= 0x9FFF; ++c) FcCharSetAddChar(common.get(), c);

  std::map<std::pair<std::string, int>, Face> found;
  for (int i = 0; fonts && i < fonts->nfont; ++i) {
    FcPattern* const font = fonts->fonts[i];
    const auto string = [font](const char* object) -> std::string {
      FcChar8* value = nullptr;
      return FcPatternGetString(font, object, 0, &value) == FcResultMatch
                 ? reinterpret_cast<const char*>(value)
                 : "";
    };
    FcCharSet* characters = nullptr;
    FcBool variable = FcFalse, outline = FcTrue;
    int index = 0;
    FcPatternGetBool(font, FC_VARIABLE, 0, &variable);  // its named instances are listed as well
    FcPatternGetBool(font, FC_OUTLINE, 0, &outline);
    if (FcPatternGetInteger(font, FC_INDEX, 0, &index) != FcResultMatch || variable || !outline ||
        FcPatternGetCharSet(font, FC_CHARSET, 0, &characters) != FcResultMatch ||
        FcCharSetIntersectCount(characters, common.get()) < 1000)
      continue;
    const std::string file = std::filesystem::weakly_canonical(string(FC_FILE)).string();
    found.try_emplace({file, index}, Face{file, index, string(FC_FAMILY), string(FC_STYLE)});
  }
  std::vector<Face> faces;
  for (auto& [key, face] : found) faces.push_back(std::move(face));
  return faces;
}

/// How a picture is turned, grown and moved; the default leaves it as the typeface draws it.
struct Distortion {
  double degrees = 0, scale = 1, shift_x = 0, shift_y = 0;  ///< shifts in pixels
};

/// Draws characters. One object per thread: FreeType's faces may not be shared.
class Renderer {
 public:
  /// Throws FileError when a face cannot be opened.
  Renderer(const std::vector<Face>& faces, int size) : size_(size) {
    FT_Library library = nullptr;
    if (FT_Init_FreeType(&library)) throw Error("FreeType cannot start");
    library_.reset(library);
    for (const Face& face : faces) {
      FT_Face opened = nullptr;
      if (FT_New_Face(library, face.file.c_str(), face.index, &opened))
        throw FileError(text("FreeType cannot open face ", face.index, " of ", face.file));
      faces_.emplace_back(opened);
      if (FT_Select_Charmap(opened, FT_ENCODING_UNICODE))
        throw FileError(text("face ", face.index, " of ", face.file, " has no Unicode table"));
    }
  }

  /// The ideographs that face f claims to have, in rising order.
  std::vector<char32_t> ideographs(std::size_t f) const {
    std::vector<char32_t> characters;
    FT_UInt glyph = 0;
    for (FT_ULong c = FT_Get_First_Char(faces_[f].get(), &glyph); glyph;
         c = FT_Get_Next_Char(faces_[f].get(), c, &glyph))
      if (is_ideograph(static_cast<char32_t>(c))) characters.push_back(static_cast<char32_t>(c));
    return characters;
  }

  /// Character c in face f, the middle of its bounding box in the middle of the picture and the
  /// em square at 7/8 of the picture's side, made smaller where the glyph would not fit;
  /// nothing when the face lacks the character or draws no ink for it.
  /// Hinting is off and the outline is centred in the font's own integer units, so that the same
  /// outline gives the same bytes in every file it is found in, whatever its side bearings.
  std::optional<Picture> draw(std::size_t f, char32_t c, const Distortion& distortion = {}) {
    const FT_Face face = faces_[f].get();
    const FT_UInt glyph = FT_Get_Char_Index(face, c);
    if (!glyph || FT_Load_Glyph(face, glyph, FT_LOAD_NO_SCALE | FT_LOAD_NO_BITMAP) ||
        face->glyph->format != FT_GLYPH_FORMAT_OUTLINE || face->glyph->outline.n_points == 0)
      return std::nullopt;
    FT_Outline& outline = face->glyph->outline;
    place(outline, face->units_per_EM, distortion);
    const auto side = static_cast<std::size_t>(size_);
    Picture picture(side * side);
    FT_Bitmap bitmap{};
    bitmap.rows = bitmap.width = static_cast<unsigned>(size_);
    bitmap.pitch = size_;
    bitmap.buffer = picture.data();
    bitmap.num_grays = 256;
    bitmap.pixel_mode = FT_PIXEL_MODE_GRAY;
    if (FT_Outline_Get_Bitmap(library_.get(), &outline, &bitmap)) return std::nullopt;
    // A handful of faint pixels is no character.
    if (std::ranges::none_of(picture, [](auto ink) { return ink >= 128; })) return std::nullopt;
    return picture;
  }

 private:
  struct CloseLibrary {
    void operator()(FT_Library library) const { FT_Done_FreeType(library); }
  };
  struct CloseFace {
    void operator()(FT_Face face) const { FT_Done_Face(face); }
  };

  /// Font units -> 1/64 pixels of the picture.
  void place(FT_Outline& outline, int units_per_em, const Distortion& distortion) const {
    FT_BBox box{};
    FT_Outline_Get_BBox(&outline, &box);
    const double middle_x = static_cast<double>(box.xMin + box.xMax) / 2;
    const double middle_y = static_cast<double>(box.yMin + box.yMax) / 2;
    const double extent = static_cast<double>(std::max(box.xMax - box.xMin, box.yMax - box.yMin));
    const double scale = 64.0 * size_ * distortion.scale *
                         std::min(0.875 / units_per_em, 0.96875 / std::max(extent, 1.0));
    const double angle = distortion.degrees * 3.14159265358979323846 / 180;
    const double cosine = scale * std::cos(angle), sine = scale * std::sin(angle);
    const double to_x = 64 * (size_ / 2.0 + distortion.shift_x);
    const double to_y = 64 * (size_ / 2.0 + distortion.shift_y);
    for (int i = 0; i < outline.n_points; ++i) {
      FT_Vector& point = outline.points[i];
      const double x = static_cast<double>(point.x) - middle_x;
      const double y = static_cast<double>(point.y) - middle_y;
      point.x = std::lround(cosine * x - sine * y + to_x);
      point.y = std::lround(sine * x + cosine * y + to_y);
    }
  }

  int size_;
  std::unique_ptr<std::remove_pointer_t<FT_Library>, CloseLibrary> library_;
  std::vector<std::unique_ptr<std::remove_pointer_t<FT_Face>, CloseFace>> faces_;
};

}  // namespace kindred::quickstart
