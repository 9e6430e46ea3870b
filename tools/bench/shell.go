package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"signdrop/keyfs"
)

// shellLoop is what one would write without an appliance: no check of who asks, no
// record, one sync for each file. It signs what is moved into in/.
const shellLoop = `
inotifywait -q -m -e moved_to --format %f in | while read -r f; do
	openssl dgst -sha384 -sign key.pem -out "tmp/$f.sig" "in/$f" || exit 1
	sync
	mv "tmp/$f.sig" "out/$f.sig"
done
`

// shell measures the naive loop.
func (b *bench) shell(string) error {
	for _, tool := range []string{"inotifywait", "openssl", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.add(&Row{Name: "shell", Note: tool + " is missing, so this was not measured: apt install inotify-tools openssl bash"})
			return nil
		}
	}
	signer, _, err := b.signer(keyfs.P384, keyfs.RecheckOff)
	if err != nil {
		return err
	}
	m, err := b.interleave(max(1, b.sizes.rounds/2), b.shellSample, signer, b.bareDisk)
	if err != nil {
		return err
	}
	row := &Row{Name: "shell", Rate: m.rate, Unit: "files", Signer: m.ratios[0], Disk: m.ratios[1], Syncs: 1,
		Note: "inotifywait, openssl dgst -sign (P-384), sync, mv"}
	for _, r := range b.rows {
		if r.Name == "files/P-384/off" || r.Name == "files/P-384/verify" {
			row.Note += fmt.Sprintf("; %s is %.0f times as fast", r.Name, r.Rate/m.rate)
		}
	}
	b.add(row)
	return nil
}

// shellSample drops files for the loop and waits for the last signature.
func (b *bench) shellSample() (float64, error) {
	dir, err := b.scratch()
	if err != nil {
		return 0, err
	}
	for _, d := range []string{"in", "tmp", "out", "made"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return 0, err
		}
	}
	key := exec.CommandContext(b.ctx, "openssl", "ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key.pem")
	key.Dir = dir
	if text, err := key.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("making a key: %w: %s", err, text)
	}
	request := requestFor(keyfs.P384, "W_000000000000000000000000000000")
	name := func(i int) string { return fmt.Sprintf("pay-%04d.json", i) }
	for i := range b.sizes.shell + 1 {
		if err := os.WriteFile(filepath.Join(dir, "made", name(i)), request(name(i)), 0o600); err != nil {
			return 0, err
		}
	}
	loop := exec.CommandContext(b.ctx, "bash", "-c", shellLoop)
	loop.Dir = dir
	loop.SysProcAttr = ownGroup()
	if err := loop.Start(); err != nil {
		return 0, err
	}
	defer func() {
		killGroup(loop.Process.Pid)
		loop.Wait() // its error is that it was killed
	}()
	w, err := watch(filepath.Join(dir, "out"))
	if err != nil {
		return 0, err
	}
	defer w.close()
	drop := func(i int) error {
		return os.Rename(filepath.Join(dir, "made", name(i)), filepath.Join(dir, "in", name(i)))
	}
	// Files are dropped one after the other until the loop has begun to look.
	if err := b.wake(dir, name(0)); err != nil {
		return 0, err
	}
	start := time.Now()
	for i := 1; i <= b.sizes.shell; i++ {
		if err := drop(i); err != nil {
			return 0, err
		}
	}
	if err := w.wait(name(b.sizes.shell) + ".sig"); err != nil {
		return 0, err
	}
	return float64(b.sizes.shell) / time.Since(start).Seconds(), nil
}

// wake drops a file under new names until one of them is signed. What was dropped
// stays: the loop ends if it does not find what it was told of.
func (b *bench) wake(dir, name string) error {
	made := filepath.Join(dir, "made", name)
	for end, i := time.Now().Add(patience), 0; time.Now().Before(end); i++ {
		again := fmt.Sprintf("wake-%04d.json", i)
		if err := os.Link(made, filepath.Join(dir, "made", again)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, "made", again), filepath.Join(dir, "in", again)); err != nil {
			return err
		}
		for range 20 {
			time.Sleep(10 * time.Millisecond)
			list, err := os.ReadDir(filepath.Join(dir, "out"))
			if err != nil || len(list) > 0 {
				return err
			}
		}
	}
	return errors.New("the shell loop does not answer")
}
