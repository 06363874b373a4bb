package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"math/bits"
	"strings"
)

// The X25519 recipients of age, https://c2sp.org/age; of post-quantum ones nothing is here.
type identity struct {
	private   *ecdh.PrivateKey
	recipient string
}

func parseIdentities(s string) (found []identity) {
	for _, line := range strings.Split(s, "\n") {
		line = strings.TrimRight(line, "\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		secret, ok := decodeBech32("age-secret-key-", strings.ToLower(line))
		if !ok || len(secret) != 32 || strings.ToUpper(line) != line {
			return nil
		}
		private, err := ecdh.X25519().NewPrivateKey(secret)
		must(err)
		found = append(found, identity{private, encodeBech32("age", private.PublicKey().Bytes())})
	}
	return
}

const age = "age-encryption.org/v1"

var raw64 = base64.RawStdEncoding.Strict()

func ageKey(secret, salt []byte, info string) []byte {
	out, err := hkdf.Key(sha256.New, secret, salt, info, 32)
	must(err)
	return out
}

func ageMAC(fileKey, header []byte) []byte {
	h := hmac.New(sha256.New, ageKey(fileKey, nil, "header"))
	h.Write(header)
	return h.Sum(nil)
}

func wrapAge(to string, plaintext []byte) recipient {
	point, ok := decodeBech32("age", to)
	need(ok && len(point) == 32, "bad-input")
	public, err := ecdh.X25519().NewPublicKey(point)
	must(err)
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(err)
	shared, err := ephemeral.ECDH(public)
	need(err == nil, "bad-input")
	share := ephemeral.PublicKey().Bytes()
	fileKey, nonce := random(16), random(16)
	wrapKey := ageKey(shared, append(append([]byte{}, share...), point...), age+"/X25519")
	body := sealChaCha(wrapKey, make([]byte, 12), fileKey)
	header := age + "\n-> X25519 " + raw64.EncodeToString(share) + "\n" + raw64.EncodeToString(body) + "\n---"
	file := header + " " + raw64.EncodeToString(ageMAC(fileKey, []byte(header))) + "\n" + string(nonce)
	last := make([]byte, 12)
	last[11] = 1
	file += string(sealChaCha(ageKey(fileKey, nonce, "payload"), last, plaintext))
	k, _ := parseKey(to)
	return recipient{k, "X25519", "", []byte(file)}
}

func unwrapAge(identities []identity, r recipient) ([]byte, bool) {
	var mine *identity
	for i := range identities {
		if identities[i].recipient == r.key.canonical {
			mine = &identities[i]
		}
	}
	need(mine != nil, "configuration")
	if r.algorithm != "X25519" {
		return nil, false
	}
	lines := strings.SplitN(string(r.wrapped), "\n", 5)
	if len(lines) != 5 || lines[0] != age || !strings.HasPrefix(lines[1], "-> X25519 ") || !strings.HasPrefix(lines[3], "--- ") {
		return nil, false
	}
	share, err1 := raw64.DecodeString(lines[1][10:])
	body, err2 := raw64.DecodeString(lines[2])
	mac, err3 := raw64.DecodeString(lines[3][4:])
	payload := []byte(lines[4])
	if err1 != nil || err2 != nil || err3 != nil || len(share) != 32 || len(body) != 32 || len(payload) < 33 {
		return nil, false
	}
	public, err := ecdh.X25519().NewPublicKey(share)
	must(err)
	shared, err := mine.private.ECDH(public)
	if err != nil {
		return nil, false
	}
	own := mine.private.PublicKey().Bytes()
	fileKey, ok := openChaCha(ageKey(shared, append(append([]byte{}, share...), own...), age+"/X25519"), make([]byte, 12), body)
	header := strings.Join(lines[:3], "\n") + "\n---"
	if !ok || !hmac.Equal(mac, ageMAC(fileKey, []byte(header))) {
		return nil, false
	}
	last := make([]byte, 12)
	last[11] = 1
	return openChaCha(ageKey(fileKey, payload[:16], "payload"), last, payload[16:])
}

// ChaCha20-Poly1305 of RFC 8439 without additional data, which the standard library keeps to itself.
func sealChaCha(key, nonce, plaintext []byte) []byte {
	out := chacha(key, nonce, plaintext)
	return append(out, poly1305(key, nonce, out)...)
}

func openChaCha(key, nonce, sealed []byte) ([]byte, bool) {
	if len(sealed) < 16 {
		return nil, false
	}
	body, tag := sealed[:len(sealed)-16], sealed[len(sealed)-16:]
	return chacha(key, nonce, body), hmac.Equal(tag, poly1305(key, nonce, body))
}

func chachaBlock(key, nonce []byte, counter uint32) []byte {
	in := [16]uint32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}
	for i := range 8 {
		in[4+i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	in[12] = counter
	for i := range 3 {
		in[13+i] = binary.LittleEndian.Uint32(nonce[4*i:])
	}
	x := in
	quarter := func(a, b, c, d int) {
		for _, turn := range []int{16, 8} {
			x[a] += x[b]
			x[d] = bits.RotateLeft32(x[d]^x[a], turn)
			x[c] += x[d]
			x[b] = bits.RotateLeft32(x[b]^x[c], map[int]int{16: 12, 8: 7}[turn])
		}
	}
	for range 10 {
		for i := range 4 {
			quarter(i, 4+i, 8+i, 12+i)
		}
		for i := range 4 {
			quarter(i, 4+(i+1)%4, 8+(i+2)%4, 12+(i+3)%4)
		}
	}
	out := []byte{}
	for i := range x {
		out = binary.LittleEndian.AppendUint32(out, x[i]+in[i])
	}
	return out
}

func chacha(key, nonce, data []byte) []byte {
	out := append([]byte{}, data...)
	for i := range out {
		if i%64 == 0 {
			stream := chachaBlock(key, nonce, uint32(1+i/64))
			for j := i; j < len(out) && j < i+64; j++ {
				out[j] ^= stream[j-i]
			}
		}
	}
	return out
}

func poly1305(key, nonce, data []byte) []byte {
	one := chachaBlock(key, nonce, 0)
	number := func(b []byte) *big.Int {
		reversed := []byte{}
		for i := len(b) - 1; i >= 0; i-- {
			reversed = append(reversed, b[i])
		}
		return new(big.Int).SetBytes(reversed)
	}
	for _, i := range []int{3, 7, 11, 15} {
		one[i] &= 15
	}
	for _, i := range []int{4, 8, 12} {
		one[i] &= 252
	}
	r, s := number(one[:16]), number(one[16:32])
	prime := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 130), big.NewInt(5))
	padded := append(append([]byte{}, data...), make([]byte, (16-len(data)%16)%16)...)
	padded = binary.LittleEndian.AppendUint64(padded, 0)
	padded = binary.LittleEndian.AppendUint64(padded, uint64(len(data)))
	sum := new(big.Int)
	for i := 0; i < len(padded); i += 16 {
		sum.Add(sum, number(append(append([]byte{}, padded[i:i+16]...), 1)))
		sum.Mod(sum.Mul(sum, r), prime)
	}
	sum.Add(sum, s)
	tag := make([]byte, 32)
	sum.FillBytes(tag)
	out := []byte{}
	for i := 31; i > 15; i-- {
		out = append(out, tag[i])
	}
	return out
}

const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

func bech32Sum(head string, words []byte) uint32 {
	sum := uint32(1)
	step := func(v byte) {
		top := sum >> 25
		sum = (sum&0x1ffffff)<<5 ^ uint32(v)
		for i, g := range []uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	for i := range head {
		step(head[i] >> 5)
	}
	step(0)
	for i := range head {
		step(head[i] & 31)
	}
	for _, w := range words {
		step(w)
	}
	return sum
}

func encodeBech32(head string, data []byte) string {
	words := regroup(data, 8, 5, true)
	sum := bech32Sum(head, append(append([]byte{}, words...), make([]byte, 6)...)) ^ 1
	for i := range 6 {
		words = append(words, byte(sum>>(25-5*i))&31)
	}
	out := head + "1"
	for _, w := range words {
		out += alphabet[w : w+1]
	}
	return out
}

func decodeBech32(head, s string) ([]byte, bool) {
	rest, ok := strings.CutPrefix(s, head+"1")
	words := []byte{}
	for _, c := range []byte(rest) {
		at := strings.IndexByte(alphabet, c)
		if at < 0 {
			return nil, false
		}
		words = append(words, byte(at))
	}
	if !ok || len(words) < 6 || bech32Sum(head, words) != 1 {
		return nil, false
	}
	data := regroup(words[:len(words)-6], 5, 8, false)
	return data, bytes.Equal(regroup(data, 8, 5, true), words[:len(words)-6])
}

func regroup(in []byte, from, to int, pad bool) (out []byte) {
	value, held := 0, 0
	for _, b := range in {
		value, held = (value<<from|int(b))&0xffff, held+from
		for held >= to {
			held -= to
			out = append(out, byte(value>>held&(1<<to-1)))
		}
	}
	if pad && held > 0 {
		out = append(out, byte(value<<(to-held)&(1<<to-1)))
	}
	return
}
