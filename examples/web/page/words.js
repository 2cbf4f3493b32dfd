// Numbers and names as people write them.

const digits = (least, most = least) => new Intl.NumberFormat('en', { minimumFractionDigits: least, maximumFractionDigits: most });
const [none, one, two] = [digits(0), digits(1), digits(2)];

export const whole = (n) => none.format(n);
export const tenths = (n) => one.format(n);
export const hundredths = (n) => two.format(n);

export function megabytes(bytes) {
  return bytes >= 1e6 ? `${hundredths(bytes / 1e6)} MB` : bytes >= 1e3 ? `${tenths(bytes / 1e3)} kB` : `${whole(bytes)} bytes`;
}

export function millions(n) {
  return n >= 1e6 ? `${tenths(n / 1e6)} million` : whole(n);
}

export const speed = (rate) => `${rate < 10 ? tenths(rate) : whole(rate)} a second`;

// 3 bits are a chance of 1 in 8.
export function chance(bits) {
  const one = 2 ** bits;
  return one < 1.05 ? 'all but certain' : one < 10 ? `1 in ${tenths(one)}` : `1 in ${whole(Number(one.toPrecision(2)))}`;
}

export const plural = (n, what) => `${whole(n)} ${what}${n === 1 ? '' : 's'}`;

// White space that would not be seen.
export const visible = (text) => text.replaceAll('\n', '↵').replaceAll('\t', '⇥');
