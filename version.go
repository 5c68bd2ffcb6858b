package main

import "runtime/debug"

// release is the version of this source. A build of a tagged module says its own.
const release = "0.1.0"

// version is what this sidejob calls itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return release
}
