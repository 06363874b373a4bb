package main

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"math/big"
	"os"
	"regexp"
	"strings"
	"syscall"
)

// A key of a key service, in this process: what docs/packet.md, section 4.6, has the service do. Head is what the stand-in's
// ciphertexts begin with (test/vectors/README.md for Google); it is authenticated with the context.
type service struct {
	Key, Algorithm, Version, Answer string
	Secret, Head                    []byte
	RSA                             map[string]string // the members of a JWK
}

// A stand-in opens one ciphertext (test/vectors/README.md, "How to run services").
type standIn struct {
	Key, Algorithm, Version string
	Wrapped, Plaintext      []byte
	Context                 *map[string]string
}

var (
	googleRSA   = whole(`RSA_DECRYPT_OAEP_(2048|3072|4096)_SHA(1|256|512)`)
	vaultCipher = whole(`vault:v([1-9][0-9]*):(.*)`)
	googleRow   = whole(`[1-9][0-9]{0,9}`)
)

func hashOf(algorithm string) hash.Hash {
	switch {
	case strings.HasSuffix(algorithm, "SHA1"):
		return sha1.New()
	case strings.HasSuffix(algorithm, "SHA512"):
		return sha512.New()
	}
	return sha256.New()
}

func (s service) wrap(plaintext []byte, named key, context map[string]string) recipient {
	r := recipient{algorithm: s.Algorithm, version: s.Version}
	if named.version != "" {
		r.version = named.version
	}
	answer := s.Answer
	if answer == "" {
		answer = named.base
	}
	if named.scheme == "azurekms" {
		answer, r.version = named.base+"/"+r.version, ""
	}
	r.key, _ = parseKey(answer)
	switch {
	case s.RSA != nil:
		var err error
		r.wrapped, err = rsa.EncryptOAEP(hashOf(s.Algorithm), rand.Reader, &s.private().PublicKey, plaintext, nil)
		must(err)
	case s.Algorithm == "A256KW":
		r.wrapped = keyWrap(s.Secret, plaintext)
	default:
		head, nonce := s.headOf(r.version), random(12)
		r.wrapped = append(append([]byte{}, head...), nonce...)
		r.wrapped = gcm(s.Secret).Seal(r.wrapped, nonce, plaintext, append(head, contextBytes(context)...))
	}
	if named.scheme == "hashivault" {
		r.wrapped = []byte("vault:v" + r.version + ":" + encode64(r.wrapped))
	}
	return r
}

// fits tells whether the algorithm is one of its service's, and the rest of that algorithm's layout. No service is asked.
func (r recipient) fits() bool {
	switch r.key.scheme {
	case "gcpkms":
		m, bits := googleRSA.FindStringSubmatch(r.algorithm), map[int]string{256: "2048", 384: "3072", 512: "4096"}
		return m == nil && r.algorithm == "GOOGLE_SYMMETRIC_ENCRYPTION" || m != nil && m[1] == bits[len(r.wrapped)] && googleRow.MatchString(r.version)
	case "awskms":
		return len(r.wrapped) <= 6144 && (r.algorithm == "SYMMETRIC_DEFAULT" || r.algorithm == "RSAES_OAEP_SHA_256")
	case "azurekms":
		return r.algorithm == "RSA-OAEP-256" || r.algorithm == "A256KW" || r.algorithm == "A256GCM" && len(r.wrapped) > 28
	case "hashivault":
		m := vaultCipher.FindSubmatch(r.wrapped)
		if m == nil || r.version != "" && r.version != string(m[1]) {
			return false
		}
		_, ok := decode64(string(m[2]))
		return ok && (r.algorithm == "transit" || r.algorithm == "transit-aead" || r.algorithm == "transit-rsa-oaep")
	}
	return true
}

// unwrap answers a plaintext, or not: then the ciphertext is not the key's own.
func (s service) unwrap(r recipient, context map[string]string) ([]byte, bool) {
	wrapped := r.wrapped
	switch r.key.scheme {
	case "hashivault":
		m := vaultCipher.FindSubmatch(wrapped)
		if m == nil || string(m[1]) != s.Version || r.version != "" && r.version != s.Version {
			return nil, false
		}
		var ok bool
		if wrapped, ok = decode64(string(m[2])); !ok {
			return nil, false
		}
	}
	if r.algorithm != s.Algorithm && r.key.scheme != "hashivault" {
		return nil, false
	}
	switch {
	case s.RSA != nil:
		plain, err := rsa.DecryptOAEP(hashOf(s.Algorithm), nil, s.private(), wrapped, nil)
		return plain, err == nil
	case s.Algorithm == "A256KW":
		return keyUnwrap(s.Secret, wrapped)
	}
	head := s.headOf(s.Version)
	if len(wrapped) < len(head)+28 || !bytes.HasPrefix(wrapped, head) {
		return nil, false
	}
	return openGCM(s.Secret, wrapped[len(head):], append(head, contextBytes(context)...))
}

func (s service) headOf(version string) []byte {
	head := append([]byte{}, s.Head...)
	if s.Algorithm != "GOOGLE_SYMMETRIC_ENCRYPTION" {
		return head
	}
	number := uint32(0)
	for _, c := range version {
		number = number*10 + uint32(c-'0')
	}
	return binary.BigEndian.AppendUint32(head, number)
}

func openGCM(secret, wrapped, additional []byte) ([]byte, bool) {
	if len(wrapped) < 28 {
		return nil, false
	}
	plain, err := gcm(secret).Open(nil, wrapped[:12], wrapped[12:], additional)
	return plain, err == nil
}

var privateKeys = map[string]*rsa.PrivateKey{}

// private makes the key of RFC 7517's members; crypto/x509 would take most of the time of a first build.
func (s service) private() *rsa.PrivateKey {
	if privateKeys[s.Key] == nil {
		number := func(name string) *big.Int {
			bytes, err := base64.RawURLEncoding.DecodeString(s.RSA[name])
			must(err)
			return new(big.Int).SetBytes(bytes)
		}
		public := rsa.PublicKey{N: number("n"), E: int(number("e").Int64())}
		made := &rsa.PrivateKey{PublicKey: public, D: number("d"), Primes: []*big.Int{number("p"), number("q")}}
		made.Precompute()
		privateKeys[s.Key] = made
	}
	return privateKeys[s.Key]
}

func (s standIn) unwrap(p *packet, r recipient) ([]byte, bool) {
	algorithm := r.algorithm
	if p.format != "v2" && r.key.scheme != "kbs" {
		algorithm = ""
	}
	fits := r.key.canonical == s.Key && algorithm == s.Algorithm && r.version == s.Version && bytes.Equal(r.wrapped, s.Wrapped) &&
		(s.Context == nil || bytes.Equal(contextBytes(*s.Context), contextBytes(p.context)))
	return s.Plaintext, fits
}

// keyWrap and keyUnwrap are RFC 3394.
func keyWrap(secret, plaintext []byte) []byte {
	block, err := aes.NewCipher(secret)
	must(err)
	a, r := bytes.Repeat([]byte{0xa6}, 8), append([]byte{}, plaintext...)
	for t := 1; t <= 6*len(r)/8; t++ {
		one := r[(t-1)*8%len(r):][:8]
		b := append(append([]byte{}, a...), one...)
		block.Encrypt(b, b)
		binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(b)^uint64(t))
		copy(one, b[8:])
	}
	return append(a, r...)
}

func keyUnwrap(secret, wrapped []byte) ([]byte, bool) {
	if len(wrapped) != 40 {
		return nil, false
	}
	block, err := aes.NewCipher(secret)
	must(err)
	a, r := append([]byte{}, wrapped[:8]...), append([]byte{}, wrapped[8:]...)
	for t := 6 * len(r) / 8; t > 0; t-- {
		one := r[(t-1)*8%len(r):][:8]
		binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(a)^uint64(t))
		b := append(a, one...)
		block.Decrypt(b, b)
		a = b[:8:8]
		copy(one, b[8:])
	}
	return r, subtle.ConstantTimeCompare(a, bytes.Repeat([]byte{0xa6}, 8)) == 1
}

// A key file (docs/packet.md, section 4.6), or identities of age, as docs/keys-age.md tells them apart.
type keyFile struct {
	secret     []byte
	identities []identity
}

func (f keyFile) service() service {
	return service{Key: thumbprint(f.secret), Algorithm: "AES-256-GCM", Secret: f.secret}
}

var textual = regexp.MustCompile(`\A[\t-\r -~]*\z`)

func readKeyFile(path string) (f keyFile, failure string) {
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		return f, "not-found"
	}
	if err != nil || !info.Mode().IsRegular() {
		return f, "configuration"
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	data, err := os.ReadFile(path)
	if err != nil || info.Mode().Perm()&0o077 != 0 || owner != 0 && int(owner) != os.Getuid() {
		return f, "configuration"
	}
	if textual.Match(data) {
		if f.identities = parseIdentities(string(data)); len(f.identities) > 0 {
			return f, ""
		}
		return f, "configuration"
	}
	if len(data) != 32 || bytes.Equal(data, bytes.Repeat(data[:1], 32)) {
		return f, "configuration"
	}
	return keyFile{secret: data}, ""
}

func thumbprint(secret []byte) string {
	sum := sha256.Sum256(append([]byte("ocicrypt-kms keyfile v1\x00"), secret...))
	const digits = "0123456789abcdef"
	out := "keyfile:sha256:"
	for _, b := range sum {
		out += digits[b>>4:b>>4+1] + digits[b&15:b&15+1]
	}
	return out
}
