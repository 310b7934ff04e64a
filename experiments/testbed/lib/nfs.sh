# shellcheck shell=bash
# A folder of one point that others see by NFSv4, with its locks. Sourced after server.sh; the testbed
# needs "${nfs_options[@]}".
#
# Only the kernel's own server and client: what mountd would answer it when asked (who is who, what is
# exported, which file handle is which folder) is written into its caches beforehand.

# shellcheck disable=SC2034 # the caller's
readonly nfs_options=(--module nfsd --module nfsv4)

# nfs_share POINT FOLDER: to all points, as root of the NFS tree. Flags: no root squash, any port, no
# subtree check, a file system number (here 0).
nfs_share() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run "$1" -- sh -c 'set -e
		for_ever=2147483647 flags=$((0x2402))
		mkdir -p /var/lib/nfs/v4recovery
		mount -t nfsd nfsd /proc/fs/nfsd
		echo "-2 -3 +4 +4.1 +4.2" >/proc/fs/nfsd/versions
		echo 10 >/proc/fs/nfsd/nfsv4gracetime
		for ip in $(sed -n "s/^\(10\.77\.[0-9.]*\).*/\1/p" /etc/hosts); do
			echo "nfsd $ip $for_ever points" >/proc/net/rpc/auth.unix.ip/channel
		done
		echo "points $1 $for_ever $flags 65534 65534 0" >/proc/net/rpc/nfsd.export/channel
		echo "points 1 \\x00000000 $for_ever $1" >/proc/net/rpc/nfsd.fh/channel
		echo 4 >/proc/fs/nfsd/threads' sh "$2"
}

# nfs_mount POINT SERVER FOLDER
nfs_mount() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run --timeout 60 "$1" -- sh -c 'mkdir -p "$2" &&
		ip=$(sed -n "s/^\([0-9.]*\) *$1$/\1/p" /etc/hosts) &&
		mount -t nfs4 -o "addr=$ip,clientaddr=$(hostname -i),vers=4.2,sec=sys" "$ip:/" "$2"' \
		sh "$2" "$3"
}
