package main

import (
	"errors"
	"fmt"
	"io/fs"
)

// tokenCommands are sidejob token.
type tokenCommands struct {
	Show   tokenShow   `cmd:"" default:"1" help:"Print the token of the private API."`
	Rotate tokenRotate `cmd:"" help:"Make a new token and print it. The old one stays valid until the next rotation; a running server needs no restart."`
}

type tokenShow struct {
	databaseFlags `embed:""`
}

// Run implements sidejob token.
func (c tokenShow) Run(std streams) error {
	token, err := environment(std.env).secret("SIDEJOB_TOKEN")
	if err != nil {
		return usage(err)
	}
	if token == "" {
		token, err = c.withFile(std, tokenIn)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, token)
	return err
}

type tokenRotate struct {
	databaseFlags `embed:""`
}

// Run implements sidejob token rotate.
func (c tokenRotate) Run(std streams) error {
	if std.env("SIDEJOB_TOKEN") != "" || std.env("SIDEJOB_TOKEN_FILE") != "" {
		return usage(errors.New("the token is given by SIDEJOB_TOKEN, and not kept by sidejob: change it there"))
	}
	token, err := c.withFile(std, rotateToken)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, token)
	return err
}

// withFile works on the file in which the database's server keeps its token.
func (f databaseFlags) withFile(std streams, do func(path string) (string, error)) (string, error) {
	address, _, err := f.address(std)
	if err != nil {
		return "", err
	}
	path := tokenFileBeside(address)
	token, err := do(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", exitf(exitNotFound, "there is no %s: sidejob serve makes it at its first start; --database names the database beside which it stands", path)
	}
	return token, err
}
