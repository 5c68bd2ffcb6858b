package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// backupSQLite copies a database as it is at one moment, also while a server writes to
// it. The copy is on the disk when it returns, and is its owner's alone.
func backupSQLite(ctx context.Context, path, to string) (size int64, err error) {
	db, err := openExisting(path)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	copied, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("%s is there already; it was left as it is: name another file", to)
	}
	if err != nil {
		return 0, fmt.Errorf("make the copy: %w", err)
	}
	defer copied.Close()
	if _, err := db.ExecContext(ctx, "VACUUM INTO $1", to); err != nil {
		return 0, errors.Join(fmt.Errorf("copy %s: %w", path, err), os.Remove(to))
	}
	info, err := copied.Stat()
	if err == nil {
		err = copied.Sync()
	}
	if err != nil {
		return 0, fmt.Errorf("write the copy: %w", err)
	}
	return info.Size(), nil
}

// openExisting opens a database of sidejob's for reading beside a server, and makes
// none.
func openExisting(path string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := checkSQLiteFile(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// inspectSQLite reads the version of the schema, 0 for none, and what is wrong.
func inspectSQLite(ctx context.Context, path string) (version int, wrong []string, err error) {
	db, err := openExisting(path)
	if err != nil {
		return 0, nil, err
	}
	defer db.Close()
	var sound, names string
	err = errors.Join(
		db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version),
		db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&sound),
		db.QueryRowContext(ctx, "SELECT COALESCE(group_concat(name, ' '), '') FROM sqlite_schema").Scan(&names))
	if err != nil {
		return 0, nil, fmt.Errorf("read database %s: %w", path, err)
	}
	if sound != "ok" {
		wrong = append(wrong, "the file is damaged: "+sound)
	}
	switch {
	case version == 0:
		return 0, append(wrong, "there is no schema: sidejob db init or sidejob serve makes it"), nil
	case version < sqliteVersion:
		return version, append(wrong, fmt.Sprintf("its schema is %d, this sidejob makes %d of it when it opens the database", version, sqliteVersion)), nil
	}
	for _, name := range sqliteNames() {
		if !strings.Contains(" "+names+" ", " "+name+" ") {
			wrong = append(wrong, "lacks "+name)
		}
	}
	return version, wrong, nil
}

// sqliteNames are the tables and indexes of schema.sql.
func sqliteNames() (names []string) {
	for line := range strings.Lines(sqliteSchema) {
		rest, ok := strings.CutPrefix(strings.Replace(line, "UNIQUE ", "", 1), "CREATE ")
		if !ok {
			continue
		}
		words := strings.Fields(rest)
		names = append(names, words[1])
	}
	return names
}
