package main

import "syscall"

// ownGroup starts a command in a process group of its own, so that all of a
// pipeline can be ended.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(pid int) { syscall.Kill(-pid, syscall.SIGKILL) }
