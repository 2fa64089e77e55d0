# Finds the three OpenCV modules that kindred::data uses as the targets opencv_core, opencv_imgproc
# and opencv_imgcodecs, and sets OpenCV_FOUND. OpenCV's own CMake package is asked first; Debian has
# it only in libopencv-dev, which brings all of OpenCV and its hundred dependencies, so libraries and
# headers of the small packages are looked for as well.
find_package(OpenCV QUIET COMPONENTS core imgcodecs imgproc)
if(NOT OpenCV_FOUND)
  find_path(KINDRED_OPENCV_INCLUDE opencv2/imgcodecs.hpp PATH_SUFFIXES opencv4)
  set(OpenCV_FOUND ${KINDRED_OPENCV_INCLUDE})
  foreach(_module core imgproc imgcodecs)
    find_library(KINDRED_OPENCV_${_module} opencv_${_module})
    if(NOT KINDRED_OPENCV_${_module})
      set(OpenCV_FOUND FALSE)
    endif()
  endforeach()
  if(OpenCV_FOUND)
    set(OpenCV_FOUND TRUE)
    foreach(_module core imgproc imgcodecs)
      if(NOT TARGET opencv_${_module})
        add_library(opencv_${_module} SHARED IMPORTED)
        set_target_properties(opencv_${_module} PROPERTIES
          IMPORTED_LOCATION ${KINDRED_OPENCV_${_module}}
          INTERFACE_INCLUDE_DIRECTORIES ${KINDRED_OPENCV_INCLUDE})
      endif()
    endforeach()
  endif()
endif()
