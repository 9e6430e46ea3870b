// Command init is process 1 of the guest. It mounts what a kernel needs, loads the
// modules, and then runs the programs that the host asks for. What is done with the
// disk, the network and the appliance the host says.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"signdrop/tools/guest/control"
)

func main() {
	err := errors.New("this program is process 1 of a guest and nothing else")
	switch {
	case os.Args[0] == containName:
		err = contain(os.Args[1:])
	case os.Getpid() == 1:
		err = run()
	}
	fmt.Fprintln(os.Stderr, "init:", err)
	if os.Args[0] != containName && os.Getpid() == 1 {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	os.Exit(1)
}

func run() error {
	for _, m := range []struct{ from, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := mount(m.from, m.at, m.from, 0); err != nil {
			return err
		}
	}
	list, err := os.ReadFile(control.ModuleList)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		if err := load(name); err != nil {
			return fmt.Errorf("loading %s: %w", name, err)
		}
	}
	var ports [2]*os.File
	for i, name := range []string{control.Port, control.Log} {
		if ports[i], err = port(name); err != nil {
			return err
		}
	}
	for _, path := range []string{"/dev/vda", "/sys/class/net/eth0"} {
		if err := wait(path, func() bool { _, err := os.Stat(path); return err == nil }); err != nil {
			return err
		}
	}
	s := &server{log: ports[1], stay: map[int]chan int{}}
	return s.serve(ports[0])
}

// mount mounts and makes the mount point.
func mount(from, at, kind string, flags uintptr) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, at, kind, flags, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", at, err)
	}
	return nil
}

func load(name string) error {
	f, err := os.Open(filepath.Join(control.Modules, name))
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// wait waits until the kernel has found a device.
func wait(what string, ok func() bool) error {
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s does not appear", what)
		}
	}
	return nil
}

// port opens the serial port that the host has given this name.
func port(name string) (f *os.File, err error) {
	var dev string
	err = wait("serial port "+name, func() bool {
		list, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, path := range list {
			if got, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(got)) == name {
				dev = filepath.Base(filepath.Dir(path))
			}
		}
		return dev != ""
	})
	if err != nil {
		return nil, err
	}
	// Not by os.OpenFile: its poller has no use for these.
	fd, err := unix.Open("/dev/"+dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening serial port %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// server carries out requests, one after the other.
type server struct {
	log  *os.File
	stay map[int]chan int // by pid: the exit status
}

func (s *server) serve(f io.ReadWriter) error {
	in, out := bufio.NewReaderSize(f, 1<<16), json.NewEncoder(f)
	if err := out.Encode(control.Reply{}); err != nil {
		return err
	}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("reading from the host: %w", err)
		}
		var req control.Request
		if err := json.Unmarshal(line, &req); err != nil {
			return fmt.Errorf("the host says what is not understood: %w", err)
		}
		if err := out.Encode(s.do(&req)); err != nil {
			return fmt.Errorf("answering the host: %w", err)
		}
	}
}

func (s *server) do(req *control.Request) (rep control.Reply) {
	if req.Stop != 0 {
		end, ok := s.stay[req.Stop]
		if !ok {
			return control.Reply{Error: fmt.Sprintf("process %d was not started here", req.Stop)}
		}
		_ = syscall.Kill(req.Stop, syscall.SIGTERM)
		delete(s.stay, req.Stop)
		return control.Reply{Exit: <-end}
	}
	if len(req.Args) == 0 {
		return control.Reply{Error: "no program is named"}
	}
	cmd := exec.Command(req.Args[0], req.Args[1:]...)
	if req.Image {
		cmd.Path, cmd.Err = "/proc/self/exe", nil
		cmd.Args = append([]string{containName}, req.Args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	}
	cmd.Env = append([]string{"PATH=/bin"}, req.Env...)
	cmd.Stdin = bytes.NewReader(req.Stdin)
	if req.Stay {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, s.log, s.log
		if err := cmd.Start(); err != nil {
			return control.Reply{Error: err.Error()}
		}
		end := make(chan int, 1)
		s.stay[cmd.Process.Pid] = end
		go func() {
			_ = cmd.Wait()
			fmt.Fprintf(os.Stderr, "init: process %d has ended: %v\n", cmd.Process.Pid, cmd.ProcessState)
			end <- cmd.ProcessState.ExitCode()
		}()
		return control.Reply{Pid: cmd.Process.Pid}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	rep = control.Reply{Stdout: out.Bytes(), Stderr: errs.Bytes()}
	if ee := new(exec.ExitError); errors.As(err, &ee) {
		rep.Exit = ee.ExitCode()
	} else if err != nil {
		rep.Error = err.Error()
	}
	return rep
}
