//go:build unix

package emulator

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a command and what it starts into a process group of its own. A
// cancel asks the group to end; finish, called when the command has ended, kills
// what is left of it.
func ownGroup(cmd *exec.Cmd) (finish func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	return func() {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // mostly there is nobody left
		}
	}
}
