// Package control is what host and guest say to each other over a serial port:
// lines of JSON, a Request from the host and one Reply to each.
package control

// Names of the guest's virtio serial ports. Over Port go requests and replies, into
// Log goes what programs in the image print.
const (
	Port = "control"
	Log  = "log"
)

// Places in the guest.
const (
	Modules = "/modules"  // the kernel's modules and ModuleList
	Image   = "/image"    // the root of the container image
	Data    = "/mnt/data" // where the data volume is mounted; /data in the image

	// ModuleList names the modules, one a line, each after those that it needs.
	ModuleList = Modules + "/list"
)

// Request asks for one of three things.
type Request struct {
	// Args is a program with its arguments, to be run to its end.
	Args  []string `json:"args,omitempty"`
	Env   []string `json:"env,omitempty"` // KEY=VALUE
	Stdin []byte   `json:"stdin,omitempty"`
	// Image: the program is one of the container image and runs as a container
	// runtime would run it.
	Image bool `json:"image,omitempty"`
	// Stay: the program is started and left running. What it prints goes to Log.
	Stay bool `json:"stay,omitempty"`

	// Stop is the Pid of a program that stays: SIGTERM, then its end is waited for.
	Stop int `json:"stop,omitempty"`
}

// Reply answers a Request. The first one comes unasked, when the guest is up.
type Reply struct {
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Exit   int    `json:"exit,omitempty"` // exit status, -1 after a signal
	Pid    int    `json:"pid,omitempty"`
	Error  string `json:"error,omitempty"` // the program could not be run
}
