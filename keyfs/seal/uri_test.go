package seal_test

import (
	"strings"
	"testing"

	"signdrop/keyfs/seal"
)

func TestParseURI(t *testing.T) {
	token, serial, object, id, module, pin, err := seal.ParseURI("pkcs11:token=My%20token;serial=12;object=kek;id=%01;type=secret-key?module-path=/usr/lib/p11.so&pin-source=credential:pin")
	must(t, err)
	if token != "My token" || serial != "12" || object != "kek" || id != "\x01" || module != "/usr/lib/p11.so" || pin != "credential:pin" {
		t.Errorf("got %q %q %q %q %q %q", token, serial, object, id, module, pin)
	}
	for _, tt := range []struct{ uri, want string }{
		{"pkcs11:", "names no token"},
		{"pkcs11:object=kek?module-path=/p11.so", "names no token"},
		{"pkcs11:token=a?module-path=/p11.so", "names no key"},
		{"pkcs11:token=a;object=kek", "module-path"},
		{"pkcs11:token=a;object=kek?module-path=p11.so", "module-path"},
		{"pkcs11:token=a;token=b;object=kek?module-path=/p11.so", "twice"},
		{"pkcs11:token=;object=kek?module-path=/p11.so", "without a value"},
		{"pkcs11:token=%zz;object=kek?module-path=/p11.so", "without a value"},
		{"pkcs11:token=a;object=kek;slot-id=1?module-path=/p11.so", "not known here"},
		{"pkcs11:token=a;object=kek;type=private?module-path=/p11.so", "another type"},
		{"pkcs11:token=a;object=kek?module-path=/p11.so&pin-value=4711", "pin-source"},
		{"http://example.com", "not a PKCS#11 URI"},
	} {
		_, _, _, _, _, _, err := seal.ParseURI(tt.uri)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "4711") {
			t.Errorf("%s: got %v, want %q", tt.uri, err, tt.want)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=a;object=kek?module-path=/p11.so&pin-source=file:/pin")
	f.Add("pkcs11:serial=1;id=%01%02?module-path=/p11.so")
	f.Fuzz(func(t *testing.T, uri string) {
		token, serial, object, id, module, _, err := seal.ParseURI(uri)
		if err == nil && (token+serial == "" || object+id == "" || !strings.HasPrefix(module, "/")) {
			t.Errorf("%q was accepted as %q %q %q %q %q", uri, token, serial, object, id, module)
		}
	})
}
