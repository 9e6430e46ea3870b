// Command image builds the container image of the appliance: static programs on
// nothing, as OCI archives, each with a list of what is in it (SBOM). It needs no
// container engine, and the same source with the same Go makes the same bytes.
//
//	go run ./tools/image -o build
//
// prints, for each platform, the digest by which a registry will name the image and
// the archive's name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "image:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	dir := f.String("o", "build", "directory for the archives")
	archs := f.String("arch", "s390x,amd64", "architectures, with commas between")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is not expected here (see -help)", f.Arg(0))
	}
	for _, arch := range strings.Split(*archs, ",") {
		if err := make1(ctx, *dir, arch, out); err != nil {
			return fmt.Errorf("making the image for linux/%s: %w", arch, err)
		}
	}
	return nil
}

// make1 writes the archive and the SBOM for one architecture.
//
// Crash: each file is replaced whole; run it again.
func make1(ctx context.Context, dir, arch string, out io.Writer) error {
	bin, err := os.MkdirTemp("", "signdrop-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	if err := build(ctx, arch, bin); err != nil {
		return err
	}
	img, err := pack(bin, arch)
	if err != nil {
		return err
	}
	data, err := archive(img)
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	list, err := bill(bin, arch, digest.String())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, "signdrop-linux-"+arch)
	if err := renameio.WriteFile(name+".oci.tar", data, 0o644); err != nil {
		return err
	}
	if err := renameio.WriteFile(name+".cdx.json", list, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s  %s.oci.tar\n", digest, name)
	return err
}
