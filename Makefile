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
	@scripts/install-deps build test kernel
	@tests/run --build $(abspath $(BUILD))

# Disks of a kernel of their own, in a small virtual machine.
check-kernel: all
	@scripts/install-deps build test kernel
	@tests/run --build $(abspath $(BUILD)) --only kernel

# The Debian packages: built, examined, installed into a folder.
check-package: all
	@scripts/install-deps build test package
	@tests/run --build $(abspath $(BUILD)) --only package

# The unit tests on emulated processors: arm64 (NEON), s390x (big-endian).
check-cross: all
	@scripts/install-deps build test cross
	@tests/run --build $(abspath $(BUILD)) --only unit-arm64,unit-s390x

# As long as you like: make soak SECONDS=3600
soak: $(BUILD)/build.ninja
	@scripts/install-deps build test
	@for kind in address,undefined:asan thread:tsan; do \
	    dir=$(BUILD)/check/$${kind#*:}; \
	    test -e $$dir/build.ninja || meson setup $$dir -Dtests=enabled \
	        -Dwerror=true -Db_lundef=false -Db_sanitize=$${kind%:*} && \
	    ninja -C $$dir || exit 1; \
	done
	@tests/soak --build $(abspath $(BUILD)) --seconds $(or $(SECONDS),600)

# The fuzz targets, guided by coverage where there is clang: each so long.
fuzz: all
	@scripts/install-deps build test
	@FUZZ_SECONDS=$(or $(SECONDS),60) tests/run --build $(abspath $(BUILD)) \
	    --only fuzz-guided

# Random command lines beside the genuine tool: the same way.
soak-differential: all
	@scripts/install-deps build test
	@test -n "$$QEMU_IMG_2" || scripts/fetch-qemu10 $(BUILD)/qemu10
	@QEMU_IMG_2=$${QEMU_IMG_2:-$(abspath $(BUILD))/qemu10/usr/bin/qemu-img} \
	    tests/differential/random --build $(abspath $(BUILD)) \
	    --seconds $(or $(SECONDS),600)

bench: all
	@scripts/install-deps build test demo
	@bench/run --build $(abspath $(BUILD))

# A PREFIX that is given counts for what was set up with another one, too.
prefix: $(BUILD)/build.ninja
ifneq ($(origin PREFIX),file)
	@grep -qsxF 'prefix=$(PREFIX)' $(BUILD)/meson-private/lamella.pc || \
	    meson configure $(BUILD) --prefix=$(PREFIX)
endif

install: prefix
	@meson compile -C $(BUILD)
	@meson install -C $(BUILD) --no-rebuild

clean:
	@rm -rf $(BUILD)

.PHONY: all prefix demo check check-kernel check-package check-cross soak \
        fuzz soak-differential bench install clean
