#define REC_BACKBONES
#include "components.hpp"
