# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the caller has or uses these, as said below
# Debian packages in a private cache: fetched with the machine's own apt
# configuration, unpacked with dpkg-deb, never installed. Sourced after common.sh.

readonly kernel_metapackage=linux-image-amd64

# apt's options that keep all of its writing inside the cache. The package lists
# are the machine's if it has any, else (or after private_lists) our own.
apt_options() {
	local root=$1
	printf '%s\n' -o "Dir::Cache=$root/apt/cache" -o "APT::Sandbox::User=" \
		-o "Debug::NoLocking=1"
	[[ -e $root/apt/private ]] && printf '%s\n' -o "Dir::State::lists=$root/apt/lists"
	return 0
}

private_lists() {
	local root=$1 options
	mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
	touch "$root/apt/private"
	mapfile -t options < <(apt_options "$root")
	say "refreshing package lists (kept in $root/apt)"
	apt-get "${options[@]}" -qq update >&2 || {
		rm -rf "$root/apt"
		return 1
	}
}

# kernel_package ROOT: name of the package the kernel metapackage depends on.
kernel_package() {
	local options
	mapfile -t options < <(apt_options "$1")
	apt-cache "${options[@]}" depends "$kernel_metapackage" 2>/dev/null |
		sed -n 's/^ *Depends: *\(linux-image-[0-9][^ ]*\).*/\1/p' | sed -n 1p
}

# download ROOT DIR: the kernel's and busybox's .deb into DIR.
download() {
	local root=$1 dir=$2 options kernel
	mapfile -t options < <(apt_options "$root")
	kernel=$(kernel_package "$root")
	[[ -n $kernel ]] || return 1
	say "fetching $kernel and busybox-static (once, into $root)"
	(cd "$dir" && apt-get "${options[@]}" -qq download "$kernel" busybox-static >&2)
}

# packages_fetch ROOT: fill ROOT/packages unless it is there. Leaves
#   packages/vmlinuz  packages/vmlinux  packages/modules/  packages/busybox
# Safe against concurrent callers; a failure leaves nothing behind.
packages_fetch() {
	local root=$1
	[[ -e $root/packages/vmlinux ]] && return
	need_tools apt-get=apt dpkg-deb=dpkg flock=util-linux xz=xz-utils
	mkdir -p "$root/apt/cache/archives/partial"
	exec {packages_lock}>"$root/lock"
	flock "$packages_lock"
	[[ -e $root/packages/vmlinux ]] || packages_fetch_locked "$root"
	exec {packages_lock}>&-
}

packages_fetch_locked() {
	local root=$1 new=$1/packages.new
	rm -rf "$new"
	mkdir -p "$new/deb"
	download "$root" "$new/deb" ||
		{ private_lists "$root" && download "$root" "$new/deb"; } ||
		die 125 "apt could not fetch $kernel_metapackage and busybox-static:" \
			"check this machine's apt sources and network"
	local deb
	for deb in "$new"/deb/*.deb; do
		dpkg-deb -x "$deb" "$new/root" || die 125 "cannot unpack ${deb##*/}"
	done
	mv "$new"/root/boot/vmlinuz-* "$new/vmlinuz"
	mv "$new"/root/lib/modules/*/ "$new/modules"
	mv "$new/root/bin/busybox" "$new/busybox"
	vmlinux_extract "$new/vmlinuz" "$new/vmlinux"
	rm -rf "$new/root" "$new/deb" "$root/packages"
	mv "$new" "$root/packages"
	rm -rf "$root/apt"
}

# le_number FILE OFFSET BYTES: an unsigned little-endian number of FILE.
le_number() { od -An -v -t "u$3" -j "$2" -N "$3" --endian=little "$1" | tr -d ' '; }

# vmlinux_extract BZIMAGE OUT: the ELF kernel inside a bzImage. The boot protocol's
# setup header (Documentation/arch/x86/boot.rst, 2.08) gives the payload's place
# and length; the payload ends in 4 bytes that hold the uncompressed size.
vmlinux_extract() {
	local image=$1 out=$2 setup_sects offset length size magic unpack
	[[ $(le_number "$image" 514 4) == 1400005704 ]] || # "HdrS"
		die 125 "$image is not a bzImage: no HdrS at offset 514"
	setup_sects=$(le_number "$image" 497 1)
	offset=$(((setup_sects + 1) * 512 + $(le_number "$image" 584 4)))
	length=$(le_number "$image" 588 4)
	size=$(le_number "$image" $((offset + length - 4)) 4)
	magic=$(od -An -v -t x1 -j "$offset" -N 4 "$image" | tr -d ' ')
	case $magic in
	fd377a58) unpack=(xz -dc) ;;
	1f8b*) unpack=(gzip -dc) ;;
	28b52ffd) unpack=(zstd -dc) ;;
	02214c18) unpack=(lz4 -dc) ;;
	*) die 125 "$image: kernel payload of unknown compression (magic $magic)" ;;
	esac
	tail -c "+$((offset + 1))" "$image" | head -c $((length - 4)) | "${unpack[@]}" >"$out" ||
		[[ $(stat -c %s "$out") == "$size" ]] ||
		die 125 "$image: ${unpack[0]} could not decompress the kernel"
}

# module_file MODULES NAME: path of a module relative to MODULES, or nothing if it
# is built in or unknown. Dashes and underscores in names are the same.
module_file() {
	local pattern=${2//[-_]/[-_]}
	sed -n "\\|/$pattern\\.ko\$|p" "$1/modules.order" | sed -n 1p
}

# module_closure MODULES NAME...: relative paths of the modules, dependencies
# first. The package has no modules.dep (depmod makes it at installation), so the
# dependencies come from each module's own "depends=".
module_closure() {
	local modules=$1 name file dep
	shift
	for name in "$@"; do
		file=$(module_file "$modules" "$name")
		if [[ -z $file ]]; then
			grep -q "/${name//[-_]/[-_]}\\.ko\$" "$modules/modules.builtin" && continue
			die 125 "kernel module '$name' does not exist in this kernel"
		fi
		dep=$(tr '\0' '\n' <"$modules/$file" | sed -n 's/^depends=//p' | sed -n 1p)
		# shellcheck disable=SC2086 # split on purpose
		[[ -z $dep ]] || module_closure "$modules" ${dep//,/ }
		printf '%s\n' "$file"
	done | awk '!seen[$0]++'
}
