#define REC_OTHERS
#include "components.hpp"
