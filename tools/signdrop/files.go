package main

import (
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"
)

// ownerOf is the user that owns a file, -1 where the system does not say.
func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// markDir makes the shell complete a flag with directories.
func markDir(cmd *cobra.Command, flag string) {
	if err := cmd.MarkFlagDirname(flag); err != nil {
		panic("internal error: " + err.Error())
	}
}

// markFile makes the shell complete a flag with files of these endings.
func markFile(cmd *cobra.Command, flag string, endings ...string) {
	if err := cmd.MarkFlagFilename(flag, endings...); err != nil {
		panic("internal error: " + err.Error())
	}
}
