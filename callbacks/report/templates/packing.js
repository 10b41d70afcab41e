// The page's data: unpacked once, read in place. A column is a typed array over the unpacked block.

const unpacked = async (id) => {
  const coded = atob(document.getElementById(id).textContent.trim());
  const bytes = new Uint8Array(coded.length);
  for (let i = 0; i < coded.length; i += 1) bytes[i] = coded.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const TYPES = { i8: Int8Array, i16: Int16Array, i32: Int32Array, f32: Float32Array };

// The header of an unpacked block, and its columns by their places in the header.
const readBlock = (block) => {
  const size = new DataView(block.buffer, block.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(block.subarray(4, 4 + size)));
  const base = block.byteOffset + 4 + size;
  const column = (place) => new TYPES[place.t](block.buffer, base + place.o, place.n);
  const words = (packed) => {
    const at = column(packed.at);
    return (i) => packed.words[at[i]];
  };
  return { header, column, words };
};
