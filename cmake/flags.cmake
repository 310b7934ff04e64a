# Warnings and instrumentation that every godwit target shares. Kept in one interface target so that
# freestanding code (the workload guest) and generated code can stay outside it.
add_library(godwit_flags INTERFACE)
target_include_directories(godwit_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(godwit_flags INTERFACE _GNU_SOURCE GODWIT_VERSION="${PROJECT_VERSION}")
target_compile_options(godwit_flags INTERFACE
	-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
	-Wformat=2 -Wcast-qual -fno-strict-aliasing -fno-common)
# Sources are named relative to the root in errors and logs, so no machine's paths end up in binaries.
target_compile_options(godwit_flags INTERFACE "-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=")

if(GODWIT_WERROR)
	target_compile_options(godwit_flags INTERFACE -Werror)
endif()
if(GODWIT_SANITIZE)
	target_compile_options(godwit_flags INTERFACE -fsanitize=${GODWIT_SANITIZE} -fno-omit-frame-pointer
		-fno-sanitize-recover=all)
	target_link_options(godwit_flags INTERFACE -fsanitize=${GODWIT_SANITIZE})
	# TSan does not model fences. Ours order accesses that the guest sees (virtqueue.c), not threads.
	if(GODWIT_SANITIZE STREQUAL "thread" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
		target_compile_options(godwit_flags INTERFACE -Wno-tsan)
	endif()
endif()
if(GODWIT_COVERAGE)
	target_compile_options(godwit_flags INTERFACE --coverage)
	target_link_options(godwit_flags INTERFACE --coverage)
endif()
if(GODWIT_FUZZ)
	target_compile_options(godwit_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# godwit_library(NAME SOURCES... LINK targets...): a static library with the shared flags.
function(godwit_library name)
	cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
	add_library(${name} STATIC ${arg_SOURCES})
	target_link_libraries(${name} PRIVATE godwit_flags PUBLIC ${arg_LINK})
	target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
endfunction()
