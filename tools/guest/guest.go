// Package guest boots the appliance's image in an emulated s390x machine, with a
// disk that loses what was not synced, and cuts the power.
//
//	m, err := guest.New(ctx, dir)      // fetches, builds, makes an empty disk
//	defer m.Close()
//	err = m.Boot(ctx)                  // kernel, modules, network
//	err = m.Format(ctx)                // once: dm-crypt and ext4
//	err = m.Mount(ctx)                 // replay, and a check of the file system
//	err = m.Serve(ctx, "SIGNDROP_…=…") // the image's entry point
//	…                                  // the SFTP door is at m.Address
//	m.Kill()                           // a power cut, for the machine
//	m.Disk.Cut(rng)                    // and for its disk; then Boot, Mount, Serve
//
// Run runs any program in the guest, with its standard input, and Image one of the
// image's. Between Mount and Serve, Run(ctx, archive, "/bin/busybox", "tar", "-x",
// "-C", "/mnt/data") puts a backup on the volume.
package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"signdrop/tools/guest/control"
)

const (
	diskSize = 256 << 20 // bytes
	memory   = "1024"    // MiB
	cpus     = "2"

	// bootLimit is how long a guest may take to answer. It takes a few seconds where
	// nothing else runs.
	bootLimit = 3 * time.Minute

	device = "/dev/mapper/data"
	// A test's key. In IBM's runtime it is the SHA-256 of two seeds.
	passphrase = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
)

// Machine is one guest, on or off. One goroutine uses it at a time; Disk, Console and
// Log may be used by others.
type Machine struct {
	Disk    *Disk
	Address string // HOST:PORT of the SFTP door, the same after each boot

	dir     string
	parts   *parts
	qemu    *exec.Cmd
	ended   chan struct{} // closed when qemu has ended
	control net.Conn
	replies *bufio.Reader
	serving int // pid of the entry point, 0 for none
}

// New prepares a machine with an empty disk. All of it lies in dir, whose path must be
// short (Unix sockets).
func New(ctx context.Context, dir string) (*Machine, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	p, err := assemble(ctx, cache, dir)
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir, parts: p}
	if m.Address, err = freeAddress(); err != nil {
		return nil, err
	}
	m.Disk, err = NewDisk(m.path("disk"), m.path("disk.sock"), diskSize)
	return m, err
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// freeAddress finds a port below those that the kernel gives away by itself, so that
// it is still free after the next boot.
func freeAddress() (string, error) {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", errors.New("no free port was found")
}

// Boot turns the machine on and waits until programs can be run in it.
func (m *Machine) Boot(ctx context.Context) error {
	if m.qemu != nil {
		return errors.New("the guest is on")
	}
	host, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		return err
	}
	console, err := os.OpenFile(m.path("console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	fmt.Fprintf(console, "\n=== boot at %s\n", time.Now().UTC().Format(time.RFC3339))
	_ = os.Remove(m.path("control.sock"))
	cmd := exec.Command("qemu-system-s390x",
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-machine", "s390-ccw-virtio", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", cpus, "-m", memory,
		"-kernel", m.parts.kernel, "-initrd", m.parts.ramdisk, "-append", "console=ttysclp0 panic=-1",
		"-chardev", "stdio,id=console,signal=off", "-device", "sclpconsole,chardev=console",
		"-blockdev", "driver=nbd,node-name=disk,server.type=unix,server.path="+m.path("disk.sock"),
		"-device", fmt.Sprintf("virtio-blk-ccw,drive=disk,write-cache=on,logical_block_size=%d,physical_block_size=%d", BlockSize, BlockSize),
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:%s:%s-10.0.2.15:10210", host, port),
		"-device", "virtio-net-ccw,netdev=net",
		"-device", "virtio-rng-ccw",
		"-device", "virtio-serial-ccw",
		"-chardev", "socket,id=control,server=on,wait=off,path="+m.path("control.sock"),
		"-device", "virtserialport,chardev=control,name="+control.Port,
		"-chardev", "file,id=log,append=on,path="+m.path("log"),
		"-device", "virtserialport,chardev=log,name="+control.Log,
	)
	cmd.Stdout, cmd.Stderr = console, console
	// No guest outlives this process, however it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting qemu: %w (Debian: apt install qemu-system-misc)", err)
	}
	m.qemu, m.ended, m.serving = cmd, make(chan struct{}), 0
	go func(ended chan struct{}) { _ = cmd.Wait(); close(ended) }(m.ended)
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	if err := m.greet(ctx); err != nil {
		m.Kill()
		return fmt.Errorf("booting the guest: %w", err)
	}
	for _, line := range []string{"ifconfig lo 127.0.0.1", "ifconfig eth0 10.0.2.15 netmask 255.255.255.0"} {
		if _, err := m.Run(ctx, nil, append([]string{"/bin/busybox"}, strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	return nil
}

// greet connects to the guest's process 1 and waits until it is there.
func (m *Machine) greet(ctx context.Context) error {
	for {
		c, err := net.Dial("unix", m.path("control.sock"))
		if err == nil {
			m.control, m.replies = c, bufio.NewReader(c)
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ended:
			return errors.New("qemu has ended: its console says why")
		case <-time.After(5 * time.Millisecond):
		}
	}
	_, err := m.reply(ctx)
	return err
}

// until makes what is said to the guest end with ctx. The connection cannot be used
// after that.
func (m *Machine) until(ctx context.Context) (stop func() bool) {
	c := m.control
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

func (m *Machine) reply(ctx context.Context) (*control.Reply, error) {
	defer m.until(ctx)()
	line, err := m.replies.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("waiting for the guest: %w", errors.Join(ctx.Err(), err))
	}
	var rep control.Reply
	if err := json.Unmarshal(line, &rep); err != nil {
		return nil, fmt.Errorf("the guest says what is not understood: %w", err)
	}
	if rep.Error != "" {
		return nil, fmt.Errorf("in the guest: %s", rep.Error)
	}
	return &rep, nil
}

func (m *Machine) ask(ctx context.Context, req *control.Request) (*control.Reply, error) {
	if m.qemu == nil {
		return nil, errors.New("the guest is off")
	}
	stop := m.until(ctx)
	err := json.NewEncoder(m.control).Encode(req)
	stop()
	if err != nil {
		return nil, fmt.Errorf("asking the guest: %w", errors.Join(ctx.Err(), err))
	}
	return m.reply(ctx)
}

// ExitError is that a program in the guest ended with another status than 0.
type ExitError struct {
	Program string
	Status  int // -1 after a signal
	Stderr  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s in the guest: exit status %d\n%s", e.Program, e.Status, strings.TrimSpace(e.Stderr))
}

func (m *Machine) run(ctx context.Context, req *control.Request) ([]byte, error) {
	rep, err := m.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	if rep.Exit != 0 {
		return rep.Stdout, &ExitError{req.Args[0], rep.Exit, string(rep.Stderr) + string(rep.Stdout)}
	}
	return rep.Stdout, nil
}

// Run runs a program in the guest to its end and returns its standard output. Any
// exit status but 0 is an *ExitError.
func (m *Machine) Run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	return m.run(ctx, &control.Request{Args: args, Stdin: stdin, Env: []string{"DM_DISABLE_UDEV=1"}})
}

// Image is Run for a program of the image, which runs as in a container, with the
// image's environment and more.
func (m *Machine) Image(ctx context.Context, env []string, args ...string) ([]byte, error) {
	return m.run(ctx, &control.Request{Args: args, Env: slices.Concat(m.parts.config.Env, env), Image: true})
}

// Entrypoint is what the image runs.
func (m *Machine) Entrypoint() []string { return m.parts.config.Entrypoint }

// Format makes a new encrypted volume on the disk, open and not mounted.
func (m *Machine) Format(ctx context.Context) error {
	// The passphrase has 256 bits: nothing is gained by stretching it.
	if _, err := m.Run(ctx, []byte(passphrase), "/sbin/cryptsetup", "luksFormat", "--batch-mode", "--type=luks2",
		"--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--key-file=-", "/dev/vda"); err != nil {
		return err
	}
	if err := m.open(ctx); err != nil {
		return err
	}
	_, err := m.Run(ctx, nil, "/sbin/mke2fs", "-q", "-t", "ext4", device)
	return err
}

func (m *Machine) open(ctx context.Context) error {
	if _, err := m.Run(ctx, nil, "/bin/busybox", "test", "-e", device); err == nil {
		return nil
	}
	_, err := m.Run(ctx, []byte(passphrase), "/sbin/cryptsetup", "open", "--key-file=-", "/dev/vda", filepath.Base(device))
	return err
}

// Mount mounts the data volume. Before, the kernel replays the file system's journal,
// which is what ext4 does after a power cut, and e2fsck must find nothing else to do.
func (m *Machine) Mount(ctx context.Context) error {
	if err := m.open(ctx); err != nil {
		return err
	}
	mount := []string{"/bin/busybox", "mount", "-t", "ext4", device, control.Data}
	for _, step := range [][]string{mount, {"/bin/busybox", "umount", control.Data}, {"/sbin/e2fsck", "-f", "-n", device}, mount} {
		if _, err := m.Run(ctx, nil, step...); err != nil {
			return err
		}
	}
	return nil
}

// Unmount is the end of Mount, and checks the file system once more.
func (m *Machine) Unmount(ctx context.Context) error {
	if _, err := m.Run(ctx, nil, "/bin/busybox", "umount", control.Data); err != nil {
		return err
	}
	_, err := m.Run(ctx, nil, "/sbin/e2fsck", "-f", "-n", device)
	return err
}

// Serve starts the image's entry point and leaves it running. Its log is in Log.
func (m *Machine) Serve(ctx context.Context, env ...string) error {
	rep, err := m.ask(ctx, &control.Request{Args: m.Entrypoint(), Env: slices.Concat(m.parts.config.Env, env), Image: true, Stay: true})
	if err == nil {
		m.serving = rep.Pid
	}
	return err
}

// Stop stops what Serve started, as runtimes do, and returns its exit status.
func (m *Machine) Stop(ctx context.Context) (int, error) {
	rep, err := m.ask(ctx, &control.Request{Stop: m.serving})
	if err != nil {
		return 0, err
	}
	m.serving = 0
	return rep.Exit, nil
}

// Kill is the end of the machine's power. What the disk lost Disk.Cut says.
func (m *Machine) Kill() {
	if m.qemu == nil {
		return
	}
	_ = m.qemu.Process.Kill()
	<-m.ended
	if m.control != nil {
		m.control.Close()
	}
	m.qemu, m.control, m.replies = nil, nil, nil
}

// Close ends everything.
func (m *Machine) Close() error {
	m.Kill()
	return m.Disk.Close()
}

// Console returns what the kernel and process 1 have said, at all boots.
func (m *Machine) Console() string { return m.text("console") }

// Log returns what the appliance has logged, at all boots, as lines of JSON.
func (m *Machine) Log() string { return m.text("log") }

func (m *Machine) text(name string) string {
	data, _ := os.ReadFile(m.path(name)) // none before the first boot
	return string(data)
}
