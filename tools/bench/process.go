package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"signdrop/keyfs"
)

// process is the measured process, as this one sees it.
type process struct {
	in     io.WriteCloser
	out    *json.Decoder
	wait   func() error
	kill   func()
	ended  bool
	opened report // what it said when the appliance was open
	memory float64
}

// start starts a measured process and waits until its appliance is open.
func (b *bench) start(p plan) (*process, error) {
	if b.profile != "" && p.Past == 0 {
		b.profiles++
		p.Profile = fmt.Sprintf("%s.%d", b.profile, b.profiles)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	pr, err := b.spawn(string(text))
	if err != nil {
		return nil, err
	}
	if pr.opened, err = pr.answer(); err != nil {
		pr.end()
		return nil, err
	}
	return pr, nil
}

// serving starts a measured process on a new volume.
func (b *bench) serving(v *volume, r keyfs.Recheck) (*process, error) {
	return b.start(plan{Data: v.dir, Recheck: r.String(), New: true})
}

func (b *bench) spawn(text string) (*process, error) {
	if b.inside {
		return b.spawnInside(text), nil
	}
	// The file of this program may be gone by now, as go run's; its inode is not.
	c := exec.CommandContext(b.ctx, "/proc/self/exe", childArgument, text)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return &process{in: in, out: json.NewDecoder(out), wait: c.Wait, kill: func() { c.Process.Kill() }}, nil
}

// spawnInside plays the measured process with goroutines.
func (b *bench) spawnInside(text string) *process {
	orders, in := io.Pipe()
	out, reports := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := child(text, orders, reports)
		reports.CloseWithError(io.EOF)
		done <- err
	}()
	return &process{in: in, out: json.NewDecoder(out), wait: func() error { return <-done }, kill: func() { in.Close() }}
}

// do gives an order and waits for the report.
func (p *process) do(o order) (report, error) {
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return report{}, fmt.Errorf("ordering %s: %w", o.Do, err)
	}
	return p.answer()
}

func (p *process) answer() (report, error) {
	var r report
	if err := p.out.Decode(&r); err != nil {
		return r, fmt.Errorf("the measured process said nothing: %w", err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%w: %s", errProcess, r.Error)
	}
	p.memory = r.Memory
	return r, nil
}

// once has everything answered that lies in the inbox, which are so many files.
func (p *process) once(files int) (report, error) {
	r, err := p.do(order{Do: "once"})
	if err == nil && (r.Answered != uint64(files) || r.Refused != 0) {
		err = fmt.Errorf("%d files were answered and %d refused, of %d", r.Answered, r.Refused, files)
	}
	return r, err
}

// onceFor has files answered for some seconds.
func (p *process) onceFor(seconds float64) (report, error) {
	r, err := p.do(order{Do: "once", Limit: seconds})
	if err == nil && (r.Answered == 0 || r.Refused != 0) {
		err = fmt.Errorf("%d files were answered and %d refused", r.Answered, r.Refused)
	}
	return r, err
}

// close ends the appliance in order, and the process.
func (p *process) close() error {
	_, err := p.do(order{Do: "close"})
	return errors.Join(err, p.end())
}

// end ends the process as it is, if it has not ended.
func (p *process) end() error {
	if p.ended {
		return nil
	}
	p.ended = true
	p.in.Close()
	return p.wait()
}
