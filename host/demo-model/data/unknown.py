"""Frames and topics for questions that the demo model cannot answer.

The answer to what it does not know has to be learnt as the default, so it is asked in as
many ways and about as many things as possible, some of them close to what it does know.
"""

TOPICS = {
    "en": """Napoleon; Shakespeare; Einstein; Mozart; Cleopatra; Elon Musk; Messi; Harry Potter; Batman; Darth Vader; the pope; the king of Spain;
photosynthesis; gravity; magnetism; electrons; DNA; vaccines; volcanoes; earthquakes; tornadoes; the moon landing; comets; galaxies; the ice age;
the stock market; inflation; mortgages; taxes; interest rates; mutual funds; cryptocurrency; accounting; marketing; insurance; pensions; contract law;
the French revolution; the cold war; the vikings; ancient Egypt; the Aztecs; the Ottoman empire; feudalism; communism; capitalism; democracy; feminism;
football; tennis; cricket; golf; the Olympics; chess; poker; yoga; marathon training; swimming; skiing; judo; surfing; hiking boots; mountain bikes;
pasta; pancakes; sourdough bread; sushi; curry; lasagne; chocolate cake; green tea; espresso; red wine; beer brewing; vegan cooking; barbecue; kimchi;
guitars; pianos; jazz; opera; rock music; hip hop; ballet; oil painting; sculpture; photography; poetry; novels; film noir; anime; video games; Minecraft;
cats; horses; elephants; penguins; bees; snakes; goldfish; dog training; bird watching; roses; orchids; cactus care; tomato plants; lawn mowing; compost;
headaches; diabetes; asthma; back pain; high blood pressure; allergies; insomnia; broken bones; pregnancy; toothache; the flu; vitamins; protein; calories;
love; marriage; divorce; friendship; raising children; school; university; exams; job interviews; salaries; my boss; my neighbours; my ex; my cousin; my grandmother;
cars; motorbikes; trains; aeroplanes; bicycles; boats; car insurance; parking tickets; driving tests; flat tyres; engine oil; electric cars; solar panels; plumbing;
smartphones; laptops; printers; televisions; headphones; smart watches; cameras; drones; robots; 3D printing; Photoshop; Excel; PowerPoint; Word; Google Maps;
Python; Java; PHP; SQL; MySQL; Postgres; Redis; MongoDB; React; CSS; WordPress; git; vim; Excel macros; regular expressions; bubble sort; binary trees; machine learning;
Paris hotels; flights to Rome; visas; passports; backpacking; camping; cruise ships; the Eiffel tower; Mount Fuji; the Sahara; the Amazon; Antarctica; Venice; Las Vegas;
philosophy; ethics; the soul; meditation; astrology; tarot; dreams; ghosts; UFOs; the Bible; Buddhism; Zen; karma; Plato; Kant; happiness; time travel; black holes;
fashion; shoes; jeans; make-up; hair styles; tattoos; jewellery; perfume; weddings; birthday gifts; Christmas trees; Halloween; gardening; carpentry; knitting; origami;
Latin grammar; French verbs; German articles; the alphabet; Morse code; sign language; geometry; algebra; calculus; statistics; prime numbers; chemistry; biology""",
    "id": """Napoleon; Soekarno; Einstein; Mozart; Gajah Mada; Elon Musk; Messi; Harry Potter; Batman; Jokowi; raja Spanyol; Nyi Roro Kidul; Chairil Anwar; Raditya Dika;
fotosintesis; gravitasi; magnet; elektron; DNA; vaksin; gunung meletus; gempa bumi; tsunami; angin topan; komet; galaksi; zaman es; gerhana;
pasar saham; inflasi; cicilan rumah; pajak; suku bunga; reksadana; kripto; akuntansi; pemasaran; asuransi; pensiun; hukum waris; pinjaman online; arisan;
revolusi Prancis; perang dingin; Majapahit; Sriwijaya; Mesir kuno; penjajahan Belanda; komunisme; kapitalisme; demokrasi; feminisme; reformasi; Pancasila;
sepak bola; bulu tangkis; voli; golf; olimpiade; catur; gaplek; yoga; lari maraton; renang; silat; mancing; mendaki gunung; sepeda gunung; liga satu;
rendang; soto; bakso; nasi goreng; sate; gado-gado; rawon; pempek; martabak; kue lapis; kopi tubruk; teh hijau; sambal; tempe; kerupuk; es cendol;
gitar; piano; jazz; dangdut; musik rock; K-pop; tari saman; lukisan; patung; fotografi; puisi; novel; film horor; anime; gim; Mobile Legends; wayang;
kucing; kuda; gajah; penguin; lebah; ular; ikan cupang; burung murai; mawar; anggrek; kaktus; tomat; rumput; kompos; lele; ayam petelur;
sakit kepala; diabetes; asma; sakit punggung; darah tinggi; alergi; insomnia; patah tulang; kehamilan; sakit gigi; flu; vitamin; protein; kalori; maag; asam urat;
cinta; pernikahan; perceraian; persahabatan; mengasuh anak; sekolah; kuliah; ujian; wawancara kerja; gaji; bos saya; tetangga; mantan saya; sepupu saya; nenek saya; mertua;
mobil; motor; kereta; pesawat; sepeda; kapal; SIM; tilang; ban bocor; oli mesin; mobil listrik; panel surya; pipa bocor; STNK; ojek; angkot;
HP; laptop; printer; televisi; headset; jam tangan; kamera; drone; robot; Photoshop; Excel; PowerPoint; Word; Google Maps; TikTok; Instagram; Shopee;
Java; PHP; SQL; MySQL; Postgres; Redis; MongoDB; React; CSS; WordPress; git; vim; makro Excel; algoritma; pohon biner; machine learning; jaringan komputer;
hotel di Bali; tiket ke Jogja; visa; paspor; berkemah; kapal pesiar; Borobudur; gunung Bromo; Raja Ampat; gurun Sahara; Amazon; Antartika; Lombok; Danau Toba;
filsafat; etika; jiwa; meditasi; astrologi; mimpi; hantu; UFO; Alkitab; puasa; zakat; haji; doa; karma; kebahagiaan; mesin waktu; lubang hitam; jodoh;
mode; sepatu; celana jeans; riasan; gaya rambut; tato; perhiasan; parfum; undangan nikah; kado ulang tahun; lebaran; mudik; berkebun; pertukangan; merajut; origami;
tata bahasa Inggris; aksara Jawa; sandi Morse; bahasa isyarat; geometri; aljabar; kalkulus; statistika; bilangan prima; kimia; biologi; sosiologi""",
}
TOPICS = {lang: [topic.strip() for topic in text.replace("\n", " ").split(";")] for lang, text in TOPICS.items()}

FRAMES = {
    "en": ["what is {}", "who is {}", "tell me about {}", "explain {}", "what do you know about {}", "how does {} work", "how do i learn {}", "write about {}", "write a poem about {}",
           "write an essay on {}", "give me tips about {}", "give me advice on {}", "i like {}", "i hate {}", "do you like {}", "what do you think of {}", "why is {} important",
           "where can i find {}", "where can i buy {}", "how much does {} cost", "recommend something about {}", "help me with {}", "i need help with {}", "i have a problem with {}",
           "{}", "a question about {}", "history of {}", "the best {}", "is {} good", "is {} dangerous", "when was {} invented", "who invented {}", "what is the difference between {} and {}",
           "{} or {}", "compare {} and {}", "can you teach me {}", "make a list about {}", "my friend talks about {} all day", "i am reading about {}", "how can i get better at {}",
           "facts about {}", "summarize {}", "tell me a story about {}", "what are the benefits of {}", "i dreamt of {}", "yesterday i saw {}", "we talked about {} at dinner", "how do i fix {}",
           "can you do {}", "what's the deal with {}", "is it true about {}", "where does {} come from", "how old is {}", "define {}"],
    "id": ["apa itu {}", "siapa {}", "ceritakan tentang {}", "jelaskan {}", "apa yang kamu tahu tentang {}", "bagaimana cara kerja {}", "cara belajar {}", "tulis tentang {}",
           "buat puisi tentang {}", "buat esai tentang {}", "beri tips tentang {}", "minta saran soal {}", "saya suka {}", "saya benci {}", "kamu suka {}", "apa pendapatmu tentang {}",
           "kenapa {} penting", "di mana bisa menemukan {}", "beli {} di mana", "berapa harga {}", "rekomendasi soal {}", "bantu saya soal {}", "saya punya masalah dengan {}", "{}",
           "mau tanya soal {}", "sejarah {}", "{} terbaik", "apakah {} bagus", "apakah {} berbahaya", "kapan {} ditemukan", "siapa penemu {}", "apa bedanya {} dan {}", "{} atau {}",
           "bandingkan {} dan {}", "ajari saya {}", "buat daftar tentang {}", "teman saya ngomongin {} terus", "saya sedang membaca soal {}", "gimana biar jago {}", "fakta tentang {}",
           "ringkas {}", "buat cerita tentang {}", "apa manfaat {}", "saya mimpi soal {}", "kemarin saya lihat {}", "kami ngobrol soal {} tadi", "cara memperbaiki {}", "{} itu gimana sih",
           "apakah benar soal {}", "{} asalnya dari mana", "berapa umur {}", "definisi {}", "info {} dong", "spill soal {}"],
}
