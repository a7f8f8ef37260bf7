# make train   prepares the data, trains and reports: the main job
# make test    the unit tests
# make venv    what both share: .venv with torch, every extra, and the kernels compiled
#
# PYTHON      the interpreter to make .venv from, 3.10 or newer
# TORCH       the torch to install
# TORCH_INDEX where pip finds it, if not where it finds everything else. Without a GPU, the CPU build is taken where pip
#             finds one; else torch comes with gigabytes of CUDA libraries, and the address of PyTorch's index of CPU
#             wheels here saves them

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

bin := .venv/bin
gpu := $(wildcard /dev/nvidia0 /dev/nvidiactl)
install_torch = $(bin)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
sources := pyproject.toml CMakeLists.txt $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h)

.PHONY: train test venv lint types sanitize emulation gpu fuzz proto proto-check bench clean

train: venv
	$(bin)/python -m recipes.asterisk

test: venv
	tests/suite $(bin)/python

venv: .venv/complete

.venv/torch:
	$(PYTHON) -m venv .venv
	$(if $(gpu),,$(install_torch) "$(TORCH)+cpu" numpy ||) $(install_torch) "$(TORCH)" numpy
	$(bin)/python -c "import torch; print('torch==' + torch.__version__.split('+')[0])" > .venv/constraints.txt
	touch $@

# What pyproject.toml asks for to build, in .venv: so each build, here and of a wheel in CI, goes on with the objects of
# the one before.
.venv/tools: .venv/torch
	$(bin)/pip install --quiet "scikit-build-core>=0.11" "nanobind>=2.9" "cmake>=3.21" ninja
	touch $@

# Nothing that seqtrain needs may bring another torch.
.venv/complete: .venv/tools $(sources)
	$(bin)/pip install --quiet --constraint .venv/constraints.txt --no-build-isolation \
		--config-settings=cmake.define.SEQTRAIN_WARNINGS_AS_ERRORS=ON --editable ".[dev]"
	touch $@

lint: venv
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/clang-format --dry-run --Werror csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu

types: venv
	$(bin)/mypy

sanitize:
	tests/sanitizers/run

# The CUDA kernels on the host; PLANT=barrier leaves a barrier out, and the run must fail.
emulation:
	PLANT=$(PLANT) csrc/emulation/run

# What needs a GPU.
gpu: venv
	$(bin)/python -m pytest tests/gpu
	$(bin)/python -m benchmarks.gpu

# On two processors.
fuzz: venv
	{ $(bin)/python -m tests.fuzz.caches --seconds 20 && $(bin)/python -m tests.fuzz.frames --seconds 20 && \
		$(bin)/python -m tests.fuzz.recordings --seconds 10; } & others=$$!; \
	$(bin)/python -m tests.fuzz.text_readers --seconds 60 && wait $$others

# The generator is pinned in an environment of its own: code of a newer one would narrow what users may have installed.
proto:
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install --quiet --requirement proto/requirements.txt
	.venv-proto/bin/python proto/generate.py

# Lint, and what would break clients; `proto/check.py --accept` takes additions into the baseline.
proto-check: venv
	$(bin)/python proto/check.py

bench: venv
	$(bin)/seqtrain bench

clean:
	rm -rf .venv build
