package appliance

// Further files of answers, which lie beside NAME.result.json.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"

	"signdrop/appliance/answer"
	"signdrop/spool"
)

// filesMember is what an answer says of its further files.
func filesMember(files []spool.File) answer.Member {
	list := make([]answer.FileEntry, len(files))
	for i, f := range files {
		list[i] = fileEntry(f)
	}
	return answer.Member{Name: "files", Value: list}
}

func fileEntry(f spool.File) answer.FileEntry {
	sum := sha256.Sum256(f.Data)
	return answer.FileEntry{Ending: f.Ending, Size: int64(len(f.Data)), SHA256: hex.EncodeToString(sum[:])}
}

// filesOf returns what an answer says of its further files. Only a single answer has
// some.
func filesOf(product []byte) ([]answer.FileEntry, error) {
	if !bytes.Contains(product, []byte(`,"files":[`)) {
		return nil, nil
	}
	line, rest, _ := bytes.Cut(product, []byte("\n"))
	if len(rest) > 0 {
		return nil, nil // a batch; the words stand in a text
	}
	a, err := answer.Parse(line)
	if err != nil {
		return nil, err
	}
	return a.Files, nil
}
