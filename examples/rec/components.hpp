#pragma once
// The components are compiled once, in components_*.cpp; to be included before the configuration.

#include <kindred/model/any.hpp>

#include "device.hpp"

namespace rec {
using AnyLayer = kindred::any::Layer<Device::Context, float>;
using AnyHead = kindred::any::Head<Device::Context, float>;
using AnyLosses = kindred::any::Losses<Device::Context, float>;
}  // namespace rec

// `extern template` everywhere but in the one file that holds the code of the group.
#ifndef REC_BACKBONES
#define REC_BACKBONES extern
#endif
#ifndef REC_OTHERS
#define REC_OTHERS extern
#endif

namespace kindred::any {
REC_BACKBONES template rec::AnyLayer::Config rec::AnyLayer::component<backbone::PPLCNet>(
    const backbone::PPLCNet::Config&);
REC_BACKBONES template rec::AnyLayer::Config rec::AnyLayer::component<backbone::PPLCNetMap>(
    const backbone::PPLCNetMap::Config&);
REC_BACKBONES template rec::AnyLayer::Config rec::AnyLayer::component<
    backbone::FPN<backbone::PPLCNetMap>>(const backbone::FPN<backbone::PPLCNetMap>::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::FC>(
    const neck::FC::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::BNNeck>(
    const neck::BNNeck::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::FRFNNeck>(
    const neck::FRFNNeck::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::GeM>(
    const neck::GeM::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::Identity>(
    const neck::Identity::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::MetaBNNeck>(
    const neck::MetaBNNeck::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::Tanh>(
    const neck::Tanh::Config&);
REC_OTHERS template rec::AnyLayer::Config rec::AnyLayer::component<neck::VehicleNeck>(
    const neck::VehicleNeck::Config&);
REC_OTHERS template rec::AnyHead::Config rec::AnyHead::component<head::FC>(const head::FC::Config&);
REC_OTHERS template rec::AnyHead::Config rec::AnyHead::component<head::ArcMargin>(
    const head::ArcMargin::Config&);
REC_OTHERS template void rec::AnyLosses::add<loss::CELoss>(rec::AnyLosses::Config&,
                                                           const loss::CELoss::Config&);
REC_OTHERS template void rec::AnyLosses::add<loss::TripletLossV2>(
    rec::AnyLosses::Config&, const loss::TripletLossV2::Config&);
}  // namespace kindred::any
