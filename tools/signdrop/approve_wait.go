package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"signdrop/appliance/answer"
	"signdrop/spool"
)

// reasons are the names of the reasons that lie in rejected/ for a command of this
// name.
func (a *approve) reasons(name string) (map[string]bool, error) {
	list, err := os.ReadDir(filepath.Join(a.dir, "rejected"))
	if err != nil {
		return nil, err
	}
	stem, _, _ := strings.Cut(strings.TrimSuffix(name, ".age"), ".json")
	found := map[string]bool{}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), stem+".") && strings.HasSuffix(e.Name(), spool.ReasonSuffix) {
			found[e.Name()] = true
		}
	}
	return found, nil
}

// await waits for the command's answer, or for a reason that was not there before, and
// prints it.
func (a *approve) await(cmd *cobra.Command, name string, data []byte, old map[string]bool) error {
	ctx := cmd.Context()
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	bar := newProgress(cmd.ErrOrStderr(), "bytes", 0)
	defer bar.clear()
	tick := time.NewTicker(pollFirst)
	defer tick.Stop()
	digest := fmt.Sprintf("%x", sha256.Sum256(data))
	said := ""
	for {
		text, err := os.ReadFile(filepath.Join(a.dir, "outbox", spool.AnswerName(name)))
		if err == nil {
			bar.clear()
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := a.refused(name, digest, old); err != nil {
			return err
		}
		said = a.show(cmd, name, bar, said)
		select {
		case <-ctx.Done():
			return codedf(exitWaiting, "%s is not answered yet", name)
		case <-tick.C:
		}
	}
}

// refused is the error for a reason that is new and of these bytes.
func (a *approve) refused(name, digest string, old map[string]bool) error {
	now, err := a.reasons(name)
	if err != nil {
		return err
	}
	for reason := range now {
		if old[reason] {
			continue
		}
		text, err := os.ReadFile(filepath.Join(a.dir, "rejected", reason))
		if err != nil {
			return err
		}
		r, err := answer.Parse(text)
		if err == nil && r.Request == digest {
			return &failure{exitRefused, fmt.Errorf("refused as %s: %s", r.Code, r.Message), r.Hint}
		}
	}
	return nil
}

// show tells how the command stands, if that has changed since said.
func (a *approve) show(cmd *cobra.Command, name string, bar *progress, said string) string {
	data, err := os.ReadFile(filepath.Join(a.dir, "outbox", spool.StatusName(name)))
	if err != nil {
		return said
	}
	st, err := answer.ParseStatus(data)
	if err != nil {
		return said
	}
	if bar != nil && st.Total > 0 {
		bar.Total = st.Total
		bar.set(st.Done, "")
		return said
	}
	now := ""
	for _, m := range st.Missing {
		now += "it lacks " + m + "\n"
	}
	if st.Total > 0 {
		now = fmt.Sprintf("%d of %d bytes\n", st.Done, st.Total)
	}
	if now != said {
		bar.clear()
		fmt.Fprint(cmd.ErrOrStderr(), now)
	}
	return now
}
