# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the caller has or uses these, as said below
# The initramfs of the testbed host: a staging directory, filled with busybox, the
# kernel modules, the tree, and every file the command needs. Sourced after
# common.sh and packages.sh.
#
# The caller sets `testbed` (this folder), `stage` (the directory to fill),
# `packages` (see packages.sh), `tree` (the directory that becomes /tree) and, unless the
# machine is an AMD, `cpu`.

# What each kind of machine needs for KVM, and for talking to us.
readonly amd_modules=(irqbypass kvm ccp kvm-amd virtio_pci virtio_console)
readonly intel_modules=(irqbypass kvm kvm-intel ata_piix sd_mod)

# Soft-RoCE: RDMA over any network card; dummy0 is one for a host by itself.
readonly rdma_modules=(rdma_rxe rdma_ucm crc32_generic dummy)

# Build leftovers that no command needs: most of a build directory's bytes.
readonly tree_excludes=(--exclude=CMakeFiles --exclude='*.o' --exclude='*.a' --exclude='*.d'
	--exclude='.ninja_*' --exclude=build.ninja --exclude=.git --exclude=CMakeCache.txt
	--exclude=compile_commands.json --exclude='*.gcno')

# stage_base MODULE...: busybox, init, and the modules on top of KVM's.
stage_base() {
	mkdir -p "$stage"/{bin,dev,etc,job,lib/modules,out,proc,root,run,sys,tmp,tree}
	cp "$packages/busybox" "$stage/bin/busybox"
	cp "$testbed/init" "$stage/init"
	chmod 755 "$stage/init" "$stage/bin/busybox"
	ln -s busybox "$stage/bin/sh"
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' \
		>"$stage/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$stage/etc/group"
	printf '127.0.0.1 localhost godwit-testbed\n::1 localhost\n' >"$stage/etc/hosts"
	printf '%s\n' "${cpu:-amd}" >"$stage/job/cpu"
	stage_modules "$@"
}

# stage_rdma: the provider that libibverbs loads by its name, and what makes devices and shows them.
stage_rdma() {
	local file
	for file in /etc/libibverbs.d/rxe.driver /usr/lib/*/libibverbs/librxe-rdmav*.so; do
		[[ -e $file ]] || die 125 "no soft-RoCE on this machine: it comes with Debian's ibverbs-providers"
		stage_file "$file"
	done
	stage_command rdma
}

stage_modules() {
	local file parameters modules=$packages/modules list=$stage/job/modules.closure
	local -n machine_modules=${cpu:-amd}_modules
	module_closure "$modules" "${machine_modules[@]}" "$@" >"$list" || exit 125
	while read -r file; do
		parameters=
		[[ $file == */kvm-@(amd|intel).ko ]] && parameters=nested=1
		cp "$modules/$file" "$stage/lib/modules/${file##*/}"
		printf '%s %s\n' "${file##*/}" "$parameters"
	done <"$list" >"$stage/etc/modules.list"
	rm "$list"
}

# stage_tree WHOLE: the tree to /tree, and a link from its place here so that
# absolute paths hold inside too. WHOLE=no takes what the project's tests run:
# build/release and the folders with scripts.
stage_tree() {
	local parts=(.) part
	if [[ $1 == no ]]; then
		parts=()
		for part in build/release experiments scripts tests; do
			[[ -d $tree/$part ]] && parts+=("$part")
		done
	fi
	((${#parts[@]} == 0)) ||
		tar -C "$tree" "${tree_excludes[@]}" -cf - "${parts[@]}" | tar -C "$stage/tree" -xf -
	printf '%s\n' "$tree" >"$stage/job/tree" # init makes the link, after mounting /tmp
}

# stage_file SRC [DST]: a file or folder. DST defaults to the same place: absolute
# if SRC is, else relative to /tree. A DST ending in / is a folder.
stage_file() {
	local src=$1 dst=${2:-$1}
	[[ -e $src ]] || die 125 "--file $src: no such file"
	[[ $dst == */ ]] && dst+=${src##*/}
	[[ $dst == /* ]] || dst=/tree/$dst
	[[ $dst == "$tree"/* ]] && dst=/tree/${dst#"$tree"/}
	mkdir -p "$(dirname "$stage$dst")"
	if [[ -d $src ]]; then
		cp -rT --preserve=mode "$src" "$stage$dst"
	else
		cp -L --preserve=mode --remove-destination "$src" "$stage$dst"
	fi
}

is_applet() { "$packages/busybox" --list | grep -qxF -- "$1"; }

# stage_command NAME: what is needed to run NAME inside. A bare name is busybox's
# if busybox has it, else this machine's; a relative path is the tree's.
stage_command() {
	local name=$1 path
	case $name in
	"$tree"/*)
		stage_command "./${name#"$tree"/}"
		return
		;;
	/bin/*)
		is_applet "${name#/bin/}" && return
		;;&
	/*)
		[[ -f $name ]] || die 127 "$name: no such command on this machine"
		path=$name
		stage_file "$path"
		;;
	*/*)
		path=$tree/${name#./}
		[[ -f $path ]] || die 127 "$name: no such command in the tree $tree"
		[[ -e $stage/tree/${name#./} ]] || stage_file "$path"
		;;
	*)
		is_applet "$name" && return
		path=$(type -P -- "$name") ||
			die 127 "$name: neither a busybox command nor one of this machine's"
		[[ -e $stage/usr/bin/$name ]] || stage_file "$path" "/usr/bin/$name"
		;;
	esac
	stage_interpreter "$path"
}

# stage_interpreter FILE: if FILE is a script, what its first line names.
stage_interpreter() {
	local line words
	IFS= read -r line < <(head -c 256 "$1" | tr -d '\0') || true
	[[ $line == '#!'* ]] || return 0
	read -ra words <<<"${line#\#!}"
	if [[ ${words[0]} == */env ]]; then
		stage_command "${words[1]}"
	elif [[ ! -e $stage${words[0]} ]]; then
		stage_command "${words[0]}"
	fi
}

# stage_bash: scripts of the tree are bash, busybox has none. They name /usr/bin/env, whoever starts
# them.
stage_bash() {
	local path
	mkdir -p "$stage/usr/bin"
	ln -sf /bin/busybox "$stage/usr/bin/env"
	path=$(type -P bash) && stage_file "$path" /bin/bash
}

# stage_libraries: every shared library that the staged programs name, to the place
# where this machine has it.
stage_libraries() {
	local file magic programs=() report missing
	while IFS= read -r -d '' file; do
		magic=
		IFS= read -r -N 4 magic <"$file" 2>/dev/null || true
		[[ $magic == $'\x7fELF' ]] && programs+=("$file")
	done < <(find "$stage" -path "$stage/lib/modules" -prune -o -type f \
		\( -perm /111 -o -name '*.so*' \) -print0)
	report=$(ldd "${programs[@]}" 2>/dev/null) || true
	missing=$(awk '/=> not found/ { print $1 }' <<<"$report" | sort -u | tr '\n' ' ')
	[[ -z $missing ]] || say "warning: shared libraries not found here: $missing"
	awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && $2 ~ /^\(0x/ { print $1 }' \
		<<<"$report" | sort -u | while read -r file; do
		[[ -e $stage$file ]] || cp -L --parents "$file" "$stage"
	done
}

# stage_job COMMAND ARGS...: the script that init runs.
stage_job() {
	local arg
	{
		printf 'cd /tree && exec'
		for arg in "$@"; do
			printf " '%s'" "${arg//\'/\'\\\'\'}"
		done
		printf '\n'
	} >"$stage/job/command"
}

# image_pack OUT: the staging directory as an initramfs.
image_pack() {
	(cd "$stage" && find . -print0 | cpio --quiet -0 -o -H newc -R +0:+0) >"$1" ||
		die 125 "cannot write $1: is the temporary folder full?"
}
