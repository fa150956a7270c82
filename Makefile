# SPDX-License-Identifier: MIT
#
# The two commands are `make demo` and `make check`; meson does the building.
# BUILD, PREFIX and DESTDIR may be set as usual.

BUILD  ?= build
PREFIX ?= /usr/local

all: $(BUILD)/build.ninja
	@meson compile -C $(BUILD)

$(BUILD)/build.ninja:
	@scripts/install-deps build
	@meson setup $(BUILD) --prefix=$(PREFIX)

demo: all
	@scripts/install-deps build demo
	@LAMELLA_BUILD=$(abspath $(BUILD)) scripts/demo

check: all
	@scripts/install-deps build test
	@tests/run --build $(abspath $(BUILD))

bench: all
	@scripts/install-deps build test demo
	@bench/run --build $(abspath $(BUILD))

install: all
	@meson install -C $(BUILD) --no-rebuild

clean:
	@rm -rf $(BUILD)

.PHONY: all demo check bench install clean
