package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what a run prints.
type Report struct {
	Machine Machine `json:"machine"`
	Full    bool    `json:"full"`
	Rows    []*Row  `json:"rows"`
}

// Row is one line of the table. What was not measured is zero.
type Row struct {
	Name string  `json:"name"`
	Rate float64 `json:"rate,omitempty"` // of Unit a second, median
	Unit string  `json:"unit,omitempty"`

	// Medians over the rounds, each round between two samples of its own.
	Signer Ratio `json:"signer_ratio,omitzero"` // to the bare signer with the same recheck
	Disk   Ratio `json:"disk_ratio,omitzero"`   // to the bare disk, files in groups of 64
	Other  Ratio `json:"other_ratio,omitzero"`  // to what Note says

	// Processor time for each of what Rate counts, in microseconds, and of that in
	// the kernel; and the bare signer's time as a share of it, which is what the
	// ratio would be if nothing ever waited.
	CPU       float64 `json:"cpu_us,omitempty"`
	System    float64 `json:"cpu_kernel_us,omitempty"`
	SignerCPU float64 `json:"signer_cpu_ratio,omitempty"`

	Syncs  float64 `json:"syncs_per_file,omitempty"` // calls of syncfs
	P50    float64 `json:"p50_ms,omitempty"`
	P99    float64 `json:"p99_ms,omitempty"`
	Start  float64 `json:"start_s,omitempty"`    // from Open until the inboxes are looked at
	Memory float64 `json:"memory_mib,omitempty"` // the most that was resident (VmHWM)

	Targets []Target `json:"targets,omitempty"`
	Note    string   `json:"note,omitempty"`
}

// Ratio is a median and the least and the most of what it is the median of.
type Ratio struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// Target is what the design asks of a row.
type Target struct {
	What    string  `json:"what"`
	Want    float64 `json:"want"`
	Got     float64 `json:"got"`
	Reached bool    `json:"reached"`
}

// atLeast and atMost add a target. What holds one %v, for the number.
func (r *Row) atLeast(what string, want, got float64) {
	r.Targets = append(r.Targets, Target{fmt.Sprintf("≥ "+what, want), want, got, got >= want})
}

func (r *Row) atMost(what string, want, got float64) {
	r.Targets = append(r.Targets, Target{fmt.Sprintf("≤ "+what, want), want, got, got <= want})
}

var columns = []string{"row", "a second", "÷ signer", "÷ disk", "÷ other", "CPU µs", "signer's", "syncs/file", "p50 ms", "p99 ms", "start s", "MiB", "target", "reached"}

func (r *Row) cells() []string {
	rate := ""
	if r.Rate > 0 {
		rate = fmt.Sprintf("%s %s", round(r.Rate), r.Unit)
	}
	var targets, marks []string
	for _, t := range r.Targets {
		targets = append(targets, t.What)
		mark := "no"
		if t.Reached {
			mark = "yes"
		}
		marks = append(marks, mark)
	}
	return []string{
		r.Name, rate, shown(r.Signer.Median, "%.2f"), shown(r.Disk.Median, "%.2f"), shown(r.Other.Median, "%.2f"),
		shown(r.CPU, "%.0f"), shown(r.SignerCPU, "%.2f"), shown(r.Syncs, "%.3f"), shown(r.P50, "%.2f"), shown(r.P99, "%.2f"), shown(r.Start, "%.3f"), shown(r.Memory, "%.0f"),
		strings.Join(targets, ", "), strings.Join(marks, ", "),
	}
}

// line is the row as it is told while the run goes on.
func (r *Row) line() string {
	var b strings.Builder
	for i, c := range r.cells() {
		switch {
		case c == "":
		case i == 0:
			b.WriteString(c + ":")
		case i == 1:
			b.WriteString(" " + c + "/s")
		default:
			fmt.Fprintf(&b, "  %s %s", columns[i], c)
		}
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "  (%s)", r.Note)
	}
	return b.String()
}

func shown(v float64, format string) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// round gives a rate with no more digits than it deserves.
func round(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.1fk", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// print writes the table, which is Markdown too, and the notes below it.
func (r Report) print(out io.Writer) error {
	fmt.Fprintf(out, "%s\n\n", r.Machine)
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', tabwriter.Debug)
	rule := make([]string, len(columns))
	for i := range rule {
		rule[i] = "---"
	}
	lines := [][]string{columns, rule}
	for _, row := range r.Rows {
		lines = append(lines, row.cells())
	}
	for _, l := range lines {
		fmt.Fprintf(w, "\t %s\t\n", strings.Join(l, "\t "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, row := range r.Rows {
		if row.Note != "" {
			fmt.Fprintf(out, "%s: %s\n", row.Name, row.Note)
		}
	}
	return nil
}

// Machine says where the numbers come from.
type Machine struct {
	Date       string `json:"date"`
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	Memory     uint64 `json:"memory_mib"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"`
	Go         string `json:"go"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d × %s, %d MiB, Linux %s, %s, %s", m.Date, m.Processors, m.Processor, m.Memory, m.Kernel, m.FileSystem, m.Go)
}

// thisMachine describes the machine, as far as it says.
func thisMachine(dir string) Machine {
	m := Machine{
		Date: time.Now().UTC().Format(time.DateOnly), Processor: "?", Processors: runtime.GOMAXPROCS(0),
		Kernel: "?", FileSystem: "?", Go: runtime.Version() + " " + runtime.GOARCH,
	}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(data)) {
			// x86, and s390x.
			name, value, _ := strings.Cut(l, ":")
			if name = strings.TrimSpace(name); name == "model name" || name == "processor 0" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		m.Memory = uint64(si.Totalram) * uint64(si.Unit) >> 20
	}
	m.FileSystem = fileSystem(dir)
	return m
}

// fileSystem names the file system that a directory lies on.
func fileSystem(dir string) string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "?"
	}
	best, device, kind := "", "", "?"
	for l := range strings.Lines(string(data)) {
		f := strings.Fields(l)
		if len(f) < 3 {
			continue
		}
		at := f[1]
		if (dir == at || strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/")) && len(at) >= len(best) {
			best, device, kind = at, f[0], f[2]
		}
	}
	if kind == "ext4" && !journaled(device) {
		kind += " without a journal"
	}
	return kind
}

// journaled says whether the kernel keeps a journal for a device of ext4.
func journaled(device string) bool {
	// The name is that of the device, a hyphen and the journal's inode.
	names, err := filepath.Glob("/proc/fs/jbd2/" + filepath.Base(device) + "-*")
	return err != nil || len(names) > 0
}
