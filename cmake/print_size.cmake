file(SIZE ${FILE} bytes)
get_filename_component(name ${FILE} NAME)
math(EXPR kilobytes "(${bytes} + 999) / 1000")
message(STATUS "${name}: ${kilobytes} kB")
