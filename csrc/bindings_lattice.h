// The lattices' part of the module.
#pragma once

#include <nanobind/nanobind.h>

namespace seqtrain {

void bind_lattices(nanobind::module_& module);

}  // namespace seqtrain
