package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// listen opens host:port or unix:PATH. flag is what the caller can change where the
// address is taken.
func listen(address, flag string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if isUnix {
		return listenUnix(path, flag)
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program: stop that one, or choose another address with %s", address, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s (%s): %w", address, flag, err)
	}
	return l, nil
}

// listenUnix opens a socket that only its owner may use. One that a killed process
// left behind is removed; anything else at the path is not.
func listenUnix(path, flag string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %s (%s): %w", path, flag, err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("%s is there and no socket: remove it, or choose another path with %s", path, flag)
	default:
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s is taken by another program: stop that one, or choose another path with %s", path, flag)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s (%s): %w", path, flag, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s (%s): %w", path, flag, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s (%s): %w", path, flag, err), l.Close())
	}
	return l, nil
}
