# kindred_add_cublas(<target>): lets kindred::cuda use cuBLAS for matrix products where the CUDA
# toolkit has it. Without it kindred's own kernels do them, which are slower.
function(kindred_add_cublas target)
  find_package(CUDAToolkit QUIET)
  find_path(KINDRED_CUBLAS_INCLUDE_DIR cublas_v2.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  # Python's packages of CUDA have the numbered name alone.
  find_library(KINDRED_CUBLAS_LIBRARY NAMES cublas libcublas.so.13 libcublas.so.12
               HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(KINDRED_CUBLAS_INCLUDE_DIR AND KINDRED_CUBLAS_LIBRARY)
    # Paths of this machine stay out of the installed package, which looks for itself.
    target_include_directories(${target} SYSTEM INTERFACE
                               $<BUILD_INTERFACE:${KINDRED_CUBLAS_INCLUDE_DIR}>)
    target_link_libraries(${target} INTERFACE $<BUILD_INTERFACE:${KINDRED_CUBLAS_LIBRARY}>)
    target_compile_definitions(${target} INTERFACE $<BUILD_INTERFACE:KINDRED_HAS_CUBLAS>)
  else()
    message(WARNING "cuBLAS was not found: on CUDA, kindred's own kernels do all matrix products "
                    "without tensor cores, which is slower, in the math modes tf32 and bf16 as well.")
  endif()
endfunction()
