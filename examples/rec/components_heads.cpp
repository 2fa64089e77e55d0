#include <kindred/config/heads.hpp>
