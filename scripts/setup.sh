#!/bin/sh
# Makes sure that what a target needs is installed. Usage: setup.sh PURPOSE…   (build | test | demo | bench)
# Debian packages are installed when run as root on a Debian-like system, otherwise this says exactly what to install.
set -eu
cd "$(dirname "$0")/.."

node_ok() {
	command -v node >/dev/null 2>&1 && node -e '
		const [a, b] = process.versions.node.split(".").map(Number);
		process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'
}
if ! node_ok; then
	echo "setup: Node.js 20.19 or newer is needed (found: $(node --version 2>/dev/null || echo none)). Install it from https://nodejs.org or your distribution." >&2
	exit 1
fi

# What is looked for, and the Debian package that holds it.
missing=
need() { # need PACKAGE test-command…
	pkg=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $pkg"
}
have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1"; }

for purpose in "$@"; do
	case $purpose in
	build)
		need gcc have gcc
		need libc6-dev test -e /usr/include/stdio.h
		need make have make
		;;
	demo | test)
		need iproute2 have ip
		need iperf3 have iperf3
		need iputils-ping have ping
		need curl have curl
		need util-linux have nsenter
		need procps have ps
		need containernetworking-plugins test -x /usr/lib/cni/macvlan
		need qemu-system-x86 have qemu-system-x86_64
		need busybox-static have busybox
		need kmod have modprobe
		need cpio have cpio
		need xz-utils have xz
		need zstd have zstd
		;;
	esac
	case $purpose in
	bench)
		need iperf3 have iperf3
		need sockperf have sockperf
		need nftables have nft
		need containernetworking-plugins test -x /usr/lib/cni/macvlan
		;;
	esac
	case $purpose in
	test)
		need clang have clang
		need llvm have llvm-strip
		need libbpf-dev test -e /usr/include/bpf/bpf_helpers.h
		need bpftool have bpftool
		need tcpdump have tcpdump
		need nftables have nft
		need etcd-server have etcd
		;;
	esac
done

missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
if [ -n "$(printf %s "$missing" | tr -d ' ')" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
		echo "setup: installing Debian packages: $missing" >&2
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq >&2
		# shellcheck disable=SC2086 # the list is meant to split
		apt-get install -y -qq --no-install-recommends $missing >/dev/null
	elif command -v apt-get >/dev/null 2>&1; then
		echo "setup: please run:  sudo apt-get install --no-install-recommends $missing" >&2
		exit 1
	else
		echo "setup: please install what these Debian packages hold: $missing" >&2
		exit 1
	fi
fi

# Node packages: once, and again when the lock file changed.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
	echo "setup: installing Node packages" >&2
	npm ci --no-fund --no-audit --loglevel=error >&2
	touch node_modules/.package-lock.json
fi
