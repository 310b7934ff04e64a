/* The commands behind `godwit nested`; argv[0] is the command's own name. */
#pragma once

int nested_probe(int argc, char **argv);
int nested_soak(int argc, char **argv);
int nested_bench(int argc, char **argv);
int nested_view_command(int argc, char **argv);
