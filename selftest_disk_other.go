//go:build !linux

package main

import (
	"errors"
	"math"
)

// canFillDisk tells whether limitFiles works here.
const canFillDisk = false

const unlimited = math.MaxUint64

func limitFiles(int, uint64) error { return errors.ErrUnsupported }
