# Queztl's front door: make run, make test, make bench, make install. The build itself is meson's.
BUILD    ?= build
ASAN     ?= build-asan
# `make run SHELL=1` asks for a shell in the guest; make's own variable of that name stays what it was.
IN_GUEST_SHELL := $(filter 1,$(SHELL))
override SHELL := /bin/sh
PACKAGES := gcc meson ninja-build pkg-config libcmocka-dev libjansson-dev libseccomp-dev liburing-dev libslirp-dev libglib2.0-dev libzydis-dev \
            zlib1g-dev libisal-dev liblzma-dev libzstd-dev liblz4-dev libssl-dev libargon2-dev acpica-tools busybox-static cpio kmod iproute2 \
            linux-image-amd64 linux-image-cloud-amd64 qemu-system-x86 ovmf qemu-utils cryptsetup-bin libnbd-bin libnbd-dev nbdkit \
            mmdebstrap systemd-boot-efi mtools gdb clang e2fsprogs fdisk valgrind

.PHONY: all run test test-nightly lockstep testbed bench install clean format packages

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) | tail -1

# Installs what is missing, and says so; silent when everything is there.
packages:
	@missing=$$(for p in $(PACKAGES); do \
	    dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	    echo "Installing Debian packages:" $$missing; \
	    sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	    $$sudo apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

$(BUILD)/build.ninja: | packages
	@meson setup $(BUILD) --buildtype=release -Db_ndebug=false >/dev/null

$(ASAN)/build.ninja: | packages
	@meson setup $(ASAN) -Db_sanitize=address,undefined -Db_lundef=false --buildtype=debugoptimized >/dev/null

run: packages all
	@BUILD=$(abspath $(BUILD)) RUN_SHELL=$(IN_GUEST_SHELL) tests/run

# Only tests want these: the block driver on other architectures.
test: PACKAGES += qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross \
    gcc-powerpc64-linux-gnu libc6-dev-ppc64-cross gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross
test: packages all $(ASAN)/build.ninja
	@ninja -C $(ASAN) | tail -1
	@BUILD=$(abspath $(BUILD)) ASAN=$(abspath $(ASAN)) CI=$(CI) tests/run-tests

# Whole machines only: all cases, or `make testbed CASES="disk net"`.
testbed: packages all
	@BUILD=$(abspath $(BUILD)) tests/testbed/run-all $(CASES)

# What takes hours: lock-step over whole boots, 10^7 random sequences.
test-nightly: packages all
	@BUILD=$(abspath $(BUILD)) tests/run-nightly

# Interpreter and translator in lock-step over a whole boot (docs/deterministic.md).
lockstep: packages all
	@BUILD=$(abspath $(BUILD)) tests/testbed/run-all --here lockstep

bench: packages all
	@BUILD=$(abspath $(BUILD)) tests/bench/bench

install: all
	@meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) $(ASAN)

format:
	clang-format -i $$(git ls-files '*.c' '*.h')
