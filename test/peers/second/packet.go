package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"unicode/utf16"
)

const v2 = "ocicrypt-kms/v2"

// An entry of a packet: the key, and what its service is asked.
type recipient struct {
	key                key
	algorithm, version string
	wrapped            []byte
}

type packet struct {
	format     string // v1, v2, coco or hown3d
	recipients []recipient
	labels     map[string]string
	context    map[string]string
	value      value // of v2, to compute the MAC over
	nonce      []byte
	ciphertext []byte
	mac        []byte
}

var (
	labelName  = whole(`[A-Za-z][A-Za-z0-9_.-]{0,63}`)
	labelValue = whole(`[!-~]|[!-~][ -~]{0,254}[!-~]`)
	term       = whole(`[A-Za-z0-9_.+:-]{1,64}`)
	digest     = whole(`[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,}`)
)

// isRecord is docs/packet.md, section 1.1.
func isRecord(data []byte) bool {
	if len(data) > 4096 {
		return false
	}
	record, err := parseJSON(data)
	if err != nil || !record.isObject() {
		return false
	}
	options, _ := record.get("cipheroptions")
	for _, name := range []string{"symkey", "digest", "cipheroptions"} {
		if _, ok, err := record.fold(name); !ok || err != nil {
			return false
		}
	}
	if _, ok, err := options.fold("nonce"); !ok || err != nil {
		return false
	}
	symkey, _ := record.get("symkey")
	sum, _ := record.get("digest")
	nonce, _ := options.get("nonce")
	return symkey.isText() && len(bytesOf(symkey)) == 32 && sum.isText() && digest.MatchString(sum.text) &&
		options.isObject() && nonce.isText() && len(bytesOf(nonce)) == 16
}

// bytesOf is the bytes of a text in base64, and none if it is not that.
func bytesOf(v value) []byte {
	if !v.isText() {
		return nil
	}
	bytes, _ := decode64(v.text)
	return bytes
}

// parsePacket is the first step of docs/packet.md, section 5.
func parsePacket(data []byte) (*packet, bool) {
	if len(data) == 0 || len(data) > 32768 {
		return nil, false
	}
	v, err := parseJSON(data)
	if err != nil || !v.isObject() {
		return nil, false
	}
	has := func(name string) bool { _, ok := v.get(name); return ok }
	if version, _ := v.get("version"); version.isText() && strings.HasPrefix(version.text, "ocicrypt-kms/") {
		return parseV2(v, string(data))
	}
	if has("kid") && has("wrapped_data") && !has("attester_endpoint") {
		return parseCoco(v)
	}
	if has("session_key") || has("attester_endpoint") || has("wrapped_data") {
		return nil, false
	}
	return parseV1(v)
}

func parseV1(v value) (*packet, bool) {
	for _, m := range v.members {
		for _, name := range []string{"key_url", "wrapped_key", "wrap_type"} {
			if m.name != name && strings.EqualFold(m.name, name) {
				return nil, false
			}
		}
	}
	url, _ := v.get("key_url")
	wrapped, _ := v.get("wrapped_key")
	kind, typed := v.get("wrap_type")
	bytes := bytesOf(wrapped)
	if !url.isText() || len(bytes) == 0 {
		return nil, false
	}
	p := &packet{format: "v1", context: map[string]string{}}
	k, ok := parseKey(url.text)
	if aws, bare := parseAWS(url.text, true); bare && !typed {
		aws.base = aws.canonical
		p.format = "hown3d"
		p.recipients = []recipient{{aws, "SYMMETRIC_DEFAULT", "", bytes}}
		return p, true
	}
	p.recipients = []recipient{{k, "GOOGLE_SYMMETRIC_ENCRYPTION", "", bytes}}
	return p, ok && k.scheme == "gcpkms" && (!typed || kind.isText() && kind.text == "AES")
}

func parseCoco(v value) (*packet, bool) {
	kid, _ := v.get("kid")
	wrapped, _ := v.get("wrapped_data")
	version, versioned := v.get("version")
	provider, named := v.get("provider")
	bytes := bytesOf(wrapped)
	if !kid.isText() || len(bytes) == 0 || versioned && version.canonical() != `"0.1.0"` || named && !provider.isText() {
		return nil, false
	}
	p := &packet{format: "coco", labels: map[string]string{}, context: map[string]string{}}
	if k, ok := parseKey(kid.text); ok && k.scheme == "kbs" {
		iv, _ := v.get("iv")
		kind, _ := v.get("wrap_type")
		p.recipients = []recipient{{k, "A256GCM", "", append(append([]byte{}, bytesOf(iv)...), bytes...)}}
		return p, (!named || strings.ToLower(provider.text) == "kbs") && len(bytes) >= 17 &&
			len(bytesOf(iv)) == 12 && kind.canonical() == `"A256GCM"`
	}
	k, ok := parseAWS(kid.text, true)
	k.base = k.canonical
	p.recipients = []recipient{{k, "SYMMETRIC_DEFAULT", "", bytes}}
	if !ok || !named || strings.ToLower(provider.text) != "aws" {
		return nil, false
	}
	notes, _ := v.get("annotations")
	context, bound := notes.get("encryption_context")
	if bound && !context.isObject() || len(context.members) > 16 {
		return nil, false
	}
	for _, m := range context.members {
		if !m.value.isText() || len(utf16.Encode([]rune(m.value.text))) > 1024 {
			return nil, false
		}
		p.context[m.name] = m.value.text
		if name, ok := strings.CutPrefix(m.name, "label."); ok {
			p.labels[name] = m.value.text
		}
	}
	return p, true
}

func parseV2(v value, data string) (*packet, bool) {
	if len(v.members) != 6 || v.canonical() != data {
		return nil, false
	}
	p := &packet{format: "v2", labels: map[string]string{}, value: v}
	version, _ := v.get("version")
	for name, to := range map[string]*[]byte{"ciphertext": &p.ciphertext, "mac": &p.mac, "nonce": &p.nonce} {
		one, _ := v.get(name)
		*to = bytesOf(one)
	}
	if version.text != v2 || len(p.ciphertext) < 17 || len(p.mac) != 32 || len(p.nonce) != 12 {
		return nil, false
	}
	labels, _ := v.get("labels")
	if !labels.isObject() || len(labels.members) > 8 {
		return nil, false
	}
	for _, m := range labels.members {
		if !isLabel(m.name, m.value.text) || !m.value.isText() {
			return nil, false
		}
		p.labels[m.name] = m.value.text
	}
	recipients, _ := v.get("recipients")
	if recipients.kind != '[' || len(recipients.list) < 1 || len(recipients.list) > 16 {
		return nil, false
	}
	for _, one := range recipients.list {
		algorithm, _ := one.get("algorithm")
		name, _ := one.get("key")
		version, versioned := one.get("version")
		wrapped, _ := one.get("wrapped_key")
		k, ok := parseKey(name.text)
		r := recipient{k, algorithm.text, version.text, bytesOf(wrapped)}
		if !ok || !one.isObject() || !name.isText() || k.canonical != name.text || !algorithm.isText() || !term.MatchString(r.algorithm) ||
			len(r.wrapped) < 1 || len(r.wrapped) > 8192 ||
			versioned && (!version.isText() || !term.MatchString(r.version) || k.version != "") {
			return nil, false
		}
		want := 3
		if versioned {
			want = 4
		}
		if len(one.members) != want {
			return nil, false
		}
		p.recipients = append(p.recipients, r)
	}
	p.context = contextOf("v2", p.labels)
	p.context["content"] = contentDigest(p.nonce, p.ciphertext)
	return p, true
}

func isLabel(name, value string) bool {
	return labelName.MatchString(name) && labelValue.MatchString(value)
}

func contextOf(domain string, labels map[string]string) map[string]string {
	context := map[string]string{"ocicrypt-kms": domain}
	for name, value := range labels {
		context["label."+name] = value
	}
	return context
}

func contentDigest(nonce, ciphertext []byte) string {
	sum := sha256.Sum256(append(append([]byte{}, nonce...), ciphertext...))
	return encode64(sum[:])
}

// contextBytes is docs/packet.md, section 4.4.
func contextBytes(context map[string]string) []byte {
	if len(context) == 0 {
		return nil
	}
	v := value{kind: '{'}
	for name, one := range context {
		v.members = append(v.members, member{name, text(one)})
	}
	return []byte(v.canonical())
}

func derive(dataKey []byte, info string) []byte {
	out, err := hkdf.Key(sha256.New, dataKey, nil, v2+" "+info, 32)
	must(err)
	return out
}

func macOf(dataKey []byte, v value) []byte {
	without := value{kind: '{'}
	for _, m := range v.members {
		if m.name != "mac" {
			without.members = append(without.members, m)
		}
	}
	h := hmac.New(sha256.New, derive(dataKey, "mac"))
	h.Write([]byte(without.canonical()))
	return h.Sum(nil)
}

func gcm(secret []byte) cipher.AEAD {
	block, err := aes.NewCipher(secret)
	must(err)
	aead, err := cipher.NewGCM(block)
	must(err)
	return aead
}

func random(length int) []byte {
	bytes := make([]byte, length)
	rand.Read(bytes)
	return bytes
}

// open is step 5 and 6, for v2 with the data key and for the others with the record.
func (p *packet) open(plaintext []byte) ([]byte, bool) {
	if p.format == "v2" {
		if len(plaintext) != 32 || !hmac.Equal(macOf(plaintext, p.value), p.mac) {
			return nil, false
		}
		var err error
		if plaintext, err = gcm(derive(plaintext, "content")).Open(nil, p.nonce, p.ciphertext, nil); err != nil {
			return nil, false
		}
	}
	return plaintext, isRecord(plaintext)
}

// A writer's packet: sealed first, then wrapped for each recipient.
type sealing struct {
	dataKey, nonce, ciphertext []byte
	labels                     map[string]string
}

func seal(record []byte, labels map[string]string) sealing {
	s := sealing{random(32), random(12), nil, labels}
	s.ciphertext = gcm(derive(s.dataKey, "content")).Seal(nil, s.nonce, record, nil)
	return s
}

func (s sealing) context() map[string]string {
	context := contextOf("v2", s.labels)
	context["content"] = contentDigest(s.nonce, s.ciphertext)
	return context
}

func (s sealing) packet(entries []recipient) []byte {
	labels, recipients := value{kind: '{'}, value{kind: '['}
	for name, one := range s.labels {
		labels.members = append(labels.members, member{name, text(one)})
	}
	seen := map[string]bool{}
	for _, one := range entries {
		if name := one.key.canonical + " " + one.version; !seen[name] {
			seen[name] = true
			recipients.list = append(recipients.list, one.value())
		}
	}
	v := value{kind: '{', members: []member{
		{"ciphertext", text(encode64(s.ciphertext))}, {"labels", labels}, {"nonce", text(encode64(s.nonce))},
		{"recipients", recipients}, {"version", text(v2)},
	}}
	v.members = append(v.members, member{"mac", text(encode64(macOf(s.dataKey, v)))})
	return []byte(v.canonical())
}

func (r recipient) value() value {
	v := value{kind: '{', members: []member{
		{"algorithm", text(r.algorithm)}, {"key", text(r.key.canonical)}, {"wrapped_key", text(encode64(r.wrapped))},
	}}
	if r.version != "" {
		v.members = append(v.members, member{"version", text(r.version)})
	}
	return v
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
