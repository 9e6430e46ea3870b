package ethereum

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/answer"
)

// ethers installs the peer where a later run finds it, and returns its directory.
func ethers(t testing.TB) string {
	t.Helper()
	h := sha256.New()
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", "ethers", name))
		if err != nil {
			t.Fatal(err)
		}
		h.Write(data)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "signdrop-test", "ethers-"+hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(dir); err != nil {
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		tmp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(tmp)
		for _, name := range []string{"package.json", "package-lock.json"} {
			data, err := os.ReadFile(filepath.Join("testdata", "ethers", name))
			if err == nil {
				err = os.WriteFile(filepath.Join(tmp, name), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=6")
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v (it takes nodejs and npm)\n%s", err, out)
		}
		// Another run may have been faster.
		if err := os.Rename(tmp, dir); err != nil {
			if _, err := os.Stat(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// TestEthers: ethers signs the same requests to the same bytes, and reads what we wrote
// as we meant it.
func TestEthers(t *testing.T) {
	dir := ethers(t)
	script, err := os.ReadFile(filepath.Join("testdata", "ethers", "peer.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	// A module finds its packages from where it lies.
	peer, err := os.CreateTemp(dir, "peer-*.mjs")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(peer.Name())
	if _, err := peer.Write(script); err != nil {
		t.Fatal(err)
	}
	peer.Close()

	type ask struct {
		Key      string          `json:"key"`
		Ethereum json.RawMessage `json:"ethereum"`
		Raw      string          `json:"raw,omitempty"`
	}
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	type want struct {
		request, payload string
		own              map[string]any
	}
	var wants []want
	for i, request := range slices.Concat(borderRequests(t), randomRequests(300), randomTyped(100)) {
		key := fmt.Sprintf("%064x", i%7+1)
		a := signed(t, key, request)
		if f := explain(a); !f.Signed || len(f.Problems) > 0 {
			t.Errorf("%s: found %+v", request, f)
		}
		w := want{request, a.Payload, map[string]any{}}
		if err := json.Unmarshal(a.Own["ethereum"], &w.own); err != nil {
			t.Fatal(err)
		}
		raw, _ := w.own["raw"].(string)
		if err := enc.Encode(ask{"0x" + key, json.RawMessage(request), raw}); err != nil {
			t.Fatal(err)
		}
		wants = append(wants, w)
	}
	// What the appliance has answered, signed with a wallet.
	golden, err := os.ReadFile("../testdata/golden/answers.txt")
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	for line := range strings.Lines(string(golden)) {
		a, err := answer.Parse([]byte(line))
		if err != nil || a.Ledger != "ethereum" || a.Operation == opAuthorization {
			continue
		}
		w := want{line, a.Payload, map[string]any{}}
		if err := json.Unmarshal(a.Own["ethereum"], &w.own); err != nil {
			t.Fatal(err)
		}
		if err := enc.Encode(w.own); err != nil {
			t.Fatal(err)
		}
		wants = append(wants, w)
		answered++
	}
	if answered < 8 {
		t.Errorf("%d answers of the appliance were found", answered)
	}
	cmd := exec.Command("node", peer.Name())
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(wants) {
		t.Fatalf("%d lines for %d requests", len(lines), len(wants))
	}
	kinds := map[string]int{}
	for i, line := range lines {
		var said map[string]any
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Fatal(err)
		}
		if len(said) < 3 {
			t.Fatalf("%s\nethers says %s", wants[i].request, line)
		}
		for name, v := range said {
			ours := wants[i].own[name]
			if name == "payload" {
				ours = wants[i].payload
			}
			if ours != v {
				t.Errorf("%s\n%s: ethers says %v, we %v", wants[i].request, name, v, ours)
			}
		}
		var o struct{ Operation string }
		if err := json.Unmarshal([]byte(wants[i].request), &o); err != nil {
			t.Fatal(err)
		}
		kinds[o.Operation]++
	}
	for op := range shapes {
		if kinds[op] == 0 {
			t.Errorf("no %s was asked", op)
		}
	}
}

// borderRequests are those at the borders of encodings that ethers takes too.
func borderRequests(t testing.TB) (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	const to = `"to":"0x3535353535353535353535353535353535353535"`
	max256 := "115792089237316195423570985008687907853269984665640564039457584007913129639935"
	for _, nonce := range []string{"0", "1", "127", "128", "255", "256", "0xffffffff", "9007199254740991"} {
		add(`{"operation":"legacy","chain_id":"1","nonce":%q,%s,"value":"0","gas_limit":"21000","gas_price":"0"}`, nonce, to)
	}
	for _, value := range []string{"0", "1", "127", "128", "0xffffffffffffffff", "0x10000000000000000", max256} {
		add(`{"operation":"eip1559","chain_id":"1","nonce":"0",%s,"value":%q,"gas_limit":"21000","max_fee_per_gas":"0","max_priority_fee_per_gas":"0"}`, to, value)
	}
	for _, n := range []int{0, 1, 54, 55, 56, 57, 255, 256, 65535, 65536} {
		add(`{"operation":"eip1559","chain_id":"1","nonce":"0",%s,"value":"1","gas_limit":"21000","max_fee_per_gas":"1","max_priority_fee_per_gas":"1","data":"0x%s"}`, to, strings.Repeat("7f", n))
		add(`{"operation":"message","bytes":"0x%s"}`, strings.Repeat("80", min(n+1, 65536)))
	}
	add(`{"operation":"legacy","chain_id":"1","nonce":"0",%s,"value":"1","gas_limit":"21000","gas_price":"1","data":"0x00"}`, to)
	add(`{"operation":"legacy","chain_id":"1","nonce":"0",%s,"value":"1","gas_limit":"21000","gas_price":"1","data":"0x80"}`, to)
	add(`{"operation":"legacy","chain_id":"9223372036854","nonce":"0","create":true,"value":"1","gas_limit":"0xffffffffffffffff","gas_price":"1","data":"0x6000"}`)
	add(`{"operation":"eip1559","chain_id":"11155111","nonce":"77","create":true,"value":"0","gas_limit":"100000","max_fee_per_gas":"1","max_priority_fee_per_gas":"0","data":"0x6000"}`)
	add(`{"operation":"eip2930","chain_id":"1","nonce":"0",%s,"value":"1","gas_limit":"21000","gas_price":"1","access_list":[]}`, to)
	add(`{"operation":"eip2930","chain_id":"1","nonce":"0",%s,"value":"1","gas_limit":"21000","gas_price":"1","access_list":[{"address":"0x0000000000000000000000000000000000000001","storage_keys":[]}]}`, to)
	for range 2 {
		auth := signed(t, strings.Repeat("46", 32), `{"operation":"authorization","chain_id":"1","nonce":"3","address":"0x3535353535353535353535353535353535353535"}`)
		var o struct{ R, S, YParity string }
		var m map[string]string
		if err := json.Unmarshal(auth.Own["ethereum"], &m); err != nil {
			t.Fatal(err)
		}
		o.R, o.S, o.YParity = m["r"], m["s"], m["y_parity"]
		entry := fmt.Sprintf(`{"chain_id":"1","nonce":"3","address":"0x3535353535353535353535353535353535353535","y_parity":%q,"r":%q,"s":%q}`, o.YParity, o.R, o.S)
		add(`{"operation":"eip7702","chain_id":"1","nonce":"0",%s,"value":"1","gas_limit":"60000","max_fee_per_gas":"1","max_priority_fee_per_gas":"1","authorization_list":[%s,%s]}`, to, entry, entry)
	}
	add(`{"operation":"authorization","chain_id":"0","nonce":"0","address":"0x0000000000000000000000000000000000000000"}`)
	add(`{"operation":"authorization","chain_id":"0x7a69","nonce":"128","address":"0x3535353535353535353535353535353535353535"}`)
	add(`{"operation":"message","text":"a \"quoted\" text, é and \n a line"}`)
	add(`{"operation":"hash","hash":"0x%s"}`, strings.Repeat("7f", 32)) // both libraries reduce a hash above the order in another way
	add(`{"operation":"hash","hash":"0x%s"}`, strings.Repeat("00", 31)+"01")
	add(`{"operation":"typed_data","typed_data":{"types":{"T":[
		{"name":"u8","type":"uint8"},{"name":"i8","type":"int8"},{"name":"u","type":"uint256"},{"name":"i","type":"int256"},{"name":"b1","type":"bytes1"},
		{"name":"b32","type":"bytes32"},{"name":"b","type":"bytes"},{"name":"s","type":"string"},{"name":"ok","type":"bool"},{"name":"a","type":"address"},
		{"name":"l","type":"uint16[]"},{"name":"m","type":"uint16[2][]"},{"name":"n","type":"Item[2]"},{"name":"e","type":"string[]"}],
		"Item":[{"name":"child","type":"Zed[]"},{"name":"other","type":"Zed"}],"Zed":[{"name":"z","type":"bool"}]},
		"primaryType":"T","domain":{"chainId":"0x1","salt":"0x%s"},"message":{
		"u8":255,"i8":"-128","u":%q,"i":"-57896044618658097711785492504343953926634992332820282019728792003956564819968","b1":"0x80","b32":"0x%s","b":"0x","s":"é\n",
		"ok":true,"a":"0x3535353535353535353535353535353535353535","l":[0,1,65535],"m":[[1,2],[3,"4"]],"n":[{"child":[{"z":true},{"z":false}],"other":{"z":false}},{"child":[],"other":{"z":true}}],"e":[]}}}`,
		strings.Repeat("11", 32), max256, strings.Repeat("22", 32))
	add(`{"operation":"typed_data","typed_data":{"types":{"EIP712Domain":[{"name":"name","type":"string"}],"Empty":[]},"primaryType":"Empty","domain":{"name":""},"message":{}}}`)
	return all
}

// randomRequests are transactions drawn with a fixed seed.
func randomRequests(n int) (all []string) {
	r := rand.New(rand.NewPCG(1, 2))
	digits := func() string { return fmt.Sprintf("0x%x", r.Uint64()>>r.IntN(64)) }
	bytesOf := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return "0x" + hex.EncodeToString(b)
	}
	for range n {
		m := map[string]any{
			"chain_id": fmt.Sprint(1 + r.Uint32N(1<<31)), "nonce": fmt.Sprint(r.Uint64() >> (11 + r.IntN(53))), "to": bytesOf(20), "value": digits(),
			"gas_limit": fmt.Sprint(21000 + r.Uint32()), "data": bytesOf(r.IntN(120)),
		}
		op := []string{opLegacy, opAccessList, opFees}[r.IntN(3)]
		m["operation"] = op
		if op == opFees {
			fee := r.Uint64() >> r.IntN(64)
			m["max_fee_per_gas"], m["max_priority_fee_per_gas"] = fmt.Sprint(fee), fmt.Sprint(fee>>r.IntN(20))
		} else {
			m["gas_price"] = digits()
		}
		if op != opLegacy {
			list := []any{}
			for range r.IntN(3) {
				keys := []string{}
				for range r.IntN(4) {
					keys = append(keys, bytesOf(32))
				}
				list = append(list, map[string]any{"address": bytesOf(20), "storage_keys": keys})
			}
			m["access_list"] = list
		}
		b, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		all = append(all, string(b))
	}
	return all
}

// randomTyped is typed data drawn with a fixed seed: structs in each other, arrays of
// arrays, values of all kinds, types in no order.
func randomTyped(n int) (all []string) {
	r := rand.New(rand.NewPCG(3, 4))
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	// number is one of so many bits, in one of the forms that a request can have it in.
	number := func(bits int, signed bool) any {
		n := new(big.Int).SetBytes(bytesOf(bits / 8))
		n.Rsh(n, uint(r.IntN(bits)))
		if signed {
			n.Rsh(n, 1)
			if r.IntN(2) == 0 {
				n.Not(n) // also the lowest, -2^(bits-1)
			}
		}
		switch {
		case n.BitLen() < 50 && r.IntN(2) == 0:
			return json.Number(n.String())
		case n.Sign() >= 0 && r.IntN(2) == 0:
			return fmt.Sprintf("0x%x", n)
		}
		return n.String()
	}
	leaf := func() (string, func() any) {
		bits := 8 * (1 + r.IntN(32))
		switch r.IntN(7) {
		case 0:
			return "bool", func() any { return r.IntN(2) == 0 }
		case 1:
			return "address", func() any { return hex0x(bytesOf(20)) }
		case 2:
			return "string", func() any { return strings.Repeat("é\n\"", r.IntN(9)) }
		case 3:
			return "bytes", func() any { return hex0x(bytesOf(r.IntN(70))) }
		case 4:
			return fmt.Sprintf("bytes%d", bits/8), func() any { return hex0x(bytesOf(bits / 8)) }
		case 5:
			return fmt.Sprintf("int%d", bits), func() any { return number(bits, true) }
		}
		return fmt.Sprintf("uint%d", bits), func() any { return number(bits, false) }
	}
	names := []string{"Root", "b", "A", "_z", "A1", "$"}
	for range n {
		types := map[string]any{}
		made := make([]func() any, len(names))
		count := 1 + r.IntN(len(names))
		for i := count - 1; i >= 0; i-- {
			var list []any
			var values []func() any
			add := func(kind string, value func() any) {
				for range r.IntN(3) {
					size, inner := r.IntN(4), value
					if size > 0 && r.IntN(2) == 0 {
						kind += fmt.Sprintf("[%d]", size)
					} else {
						kind += "[]"
					}
					value = func() any {
						l := []any{}
						for range size {
							l = append(l, inner())
						}
						return l
					}
				}
				list = append(list, map[string]any{"name": fmt.Sprintf("f%d", len(list)), "type": kind})
				values = append(values, value)
			}
			// The next is used, so all are; and sometimes others.
			for j := i + 1; j < count; j++ {
				if j == i+1 || r.IntN(3) == 0 {
					add(names[j], made[j])
				}
			}
			for range 1 + r.IntN(4) {
				add(leaf())
			}
			types[names[i]] = list
			made[i] = func() any {
				m := map[string]any{}
				for j, v := range values {
					m[fmt.Sprintf("f%d", j)] = v()
				}
				return m
			}
		}
		domain := map[string]any{"chainId": fmt.Sprint(1 + r.Uint32())}
		for name, v := range map[string]any{"name": "é", "version": "1", "verifyingContract": "0x3535353535353535353535353535353535353535", "salt": "0x" + strings.Repeat("07", 32)} {
			if (len(name)+len(all))%3 > 0 {
				domain[name] = v
			}
		}
		b, err := json.Marshal(map[string]any{"operation": opTypedData, "typed_data": map[string]any{
			"types": types, "primaryType": names[0], "domain": domain, "message": made[0](),
		}})
		if err != nil {
			panic(err)
		}
		all = append(all, string(b))
	}
	return all
}
