//go:build !unix

package main

import "os"

// terminalWidth is a guess on systems that sidejob does not ask.
func terminalWidth(*os.File) int { return unknownWidth }
