package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// provingSQLite is a file in the temporary folder, which goes with that.
type provingSQLite struct{ path string }

func newProvingSQLite(dir string) provingSQLite {
	return provingSQLite{path: filepath.Join(dir, "selftest.db")}
}

func (d provingSQLite) address() string  { return d.path }
func (d provingSQLite) engine() string   { return "SQLite" }
func (d provingSQLite) name() string     { return d.path }
func (d provingSQLite) password() string { return "" }

// outlive has nothing to do: whoever opens the file has it alone.
func (d provingSQLite) outlive(context.Context) error { return nil }

// remove leaves it to the folder.
func (d provingSQLite) remove(context.Context) error { return nil }

func (d provingSQLite) copy() string { return d.path + ".backup" }

func (d provingSQLite) backup(context.Context) error { return copyDatabase(d.path, d.copy()) }

func (d provingSQLite) restore(context.Context) (bool, error) {
	if _, err := os.Stat(d.copy()); err != nil {
		return false, nil // there was no round
	}
	return true, copyDatabase(d.copy(), d.path)
}

func (d provingSQLite) hindrances() []hindrance {
	if !canFillDisk {
		return nil
	}
	return []hindrance{{name: "the disk is full", begin: fillDisk}}
}

// fillDisk lets no file of the server grow beyond some size.
func fillDisk(_ context.Context, server *child, random *rand.Rand) (lift func() error, err error) {
	pid := server.cmd.Process.Pid
	return func() error { return limitFiles(pid, unlimited) }, limitFiles(pid, uint64(random.IntN(64<<10)))
}

// copyDatabase copies the files of a database that nobody has open, in place of
// whatever was there.
func copyDatabase(from, to string) error {
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(to + part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("copy the database: %w", err)
		}
	}
	for _, part := range []string{"", "-wal"} {
		if err := copyFileTo(from+part, to+part); err != nil && !(part != "" && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("copy the database: %w", err)
		}
	}
	return nil
}

func copyFileTo(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
