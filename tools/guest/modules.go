package guest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// moduleFiles finds modules below a directory, and those that they need. Each comes
// after what it needs.
func moduleFiles(dir string, names ...string) ([]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(p), ".ko"); ok {
			files[moduleName(name)] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var list []string
	var add func(name string) error
	add = func(name string) error {
		file := files[moduleName(name)]
		if file == "" {
			return fmt.Errorf("the kernel has no module %s below %s", name, dir)
		}
		if slices.Contains(list, file) {
			return nil
		}
		needs, err := moduleNeeds(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return err
			}
		}
		list = append(list, file)
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// moduleName makes - and _ the same, as the kernel does.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleNeeds reads "depends" in a module's .modinfo: words NAME=VALUE with zero
// bytes between. Depmod reads the symbols instead and comes to the same.
func moduleNeeds(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("it has no .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for _, w := range bytes.Split(info, []byte{0}) {
		if v, ok := strings.CutPrefix(string(w), "depends="); ok && v != "" {
			return strings.Split(v, ","), nil
		}
	}
	return nil, nil
}

// programFiles finds programs below the root of an unpacked Debian, their libraries
// and their loader: from names in the guest to files here.
func programFiles(root string, programs ...string) (map[string]string, error) {
	files := map[string]string{}
	var add func(name string) error
	add = func(name string) error {
		if files[name] != "" {
			return nil
		}
		file, err := unpacked(root, name)
		if err != nil {
			return err
		}
		files[name] = file
		f, err := elf.Open(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		defer f.Close()
		needs, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for i, lib := range needs {
			needs[i] = "lib/s390x-linux-gnu/" + lib
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				loader, err := io.ReadAll(p.Open())
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				needs = append(needs, strings.Trim(string(loader), "/\x00"))
			}
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return fmt.Errorf("%s needs %s: %w", name, n, err)
			}
		}
		return nil
	}
	for _, p := range programs {
		if err := add(p); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// unpacked finds a file of Debian's, which may have moved from / to /usr.
func unpacked(root, name string) (string, error) {
	for _, top := range []string{"", "usr"} {
		file := filepath.Join(root, top, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("neither %s nor usr/%s is below %s", name, name, root)
}
