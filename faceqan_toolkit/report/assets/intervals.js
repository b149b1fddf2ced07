// Intervals of 95 % for shares: the same formulas as the package's intervals.py.

const Z95 = 1.959963984540054;

// Wilson's interval of count in total: [low, high].
function wilson(count, total) {
  const share = count / total;
  const centre = share + Z95 ** 2 / (2 * total);
  const reach = Z95 * Math.sqrt((share * (1 - share)) / total + Z95 ** 2 / (4 * total ** 2));
  const scale = 1 + Z95 ** 2 / total;
  return [count === 0 ? 0 : (centre - reach) / scale, count === total ? 1 : (centre + reach) / scale];
}

// Newcombe's interval of one share minus another, each [count, total]: [difference, low, high].
function difference(first, second) {
  const [one, other] = [first[0] / first[1], second[0] / second[1]];
  const [[low, high], [otherLow, otherHigh]] = [wilson(...first), wilson(...second)];
  const apart = one - other;
  return [apart, apart - Math.hypot(one - low, otherHigh - other), apart + Math.hypot(high - one, other - otherLow)];
}
