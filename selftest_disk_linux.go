package main

import "golang.org/x/sys/unix"

// canFillDisk tells whether limitFiles works here.
const canFillDisk = true

// unlimited is no limit on the size of files.
const unlimited = unix.RLIM_INFINITY

// limitFiles lets no file grow beyond so many bytes by the process: for it, that is a
// full disk.
func limitFiles(pid int, bytes uint64) error {
	var is unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &is); err != nil {
		return err
	}
	return unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(bytes, is.Max), Max: is.Max}, nil)
}
