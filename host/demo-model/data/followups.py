"""Second turns that only make sense after the first, and the short system prompts.

Each row: the intents that may come before, the intent that is asked, the wordings.
"""

FOLLOWUPS = {
    "en": [
        ("start", "stop", ["and how do i stop it", "how do i end it", "and to stop", "and stopping", "how do i turn it off again", "and shut down", "how can i quit it then"]),
        ("stop", "start", ["and how do i start it again", "and start it", "how do i bring it back", "and starting", "how do i turn it on again", "then how do i run it again"]),
        ("start", "needs", ["what do i need for that", "what has to be installed", "which system does that need", "does that need a GPU", "on which systems", "what are the requirements for it"]),
        ("start", "address", ["and where is it then", "which port will it use", "and on which address", "where do i reach it then", "what URL do i open then", "and the port"]),
        ("start address", "key", ["and the key", "which key do i use", "where do i get the key for it", "it asks for a key", "does that need a key", "how do i log in there"]),
        ("start address", "cert", ["and the certificate", "it says the certificate is not trusted", "but my browser warns me", "curl does not trust it", "the certificate looks wrong"]),
        ("key", "key_manage", ["and if it leaks", "can i make more of them", "how do i revoke it", "can it expire", "and another one for my friend", "how do i replace it", "what if i lose it to somebody else"]),
        ("key api", "denied", ["i did that and get 401", "it says 403", "still unauthorized", "it is rejected", "that gives forbidden"]),
        ("key_manage", "reload", ["does that need a restart", "do i restart after that", "is a restart necessary", "when is that active"]),
        ("denied", "key", ["so where is my key", "which key is the right one", "how do i send the key", "and where do i get one", "which header is it"]),
        ("plugins", "plugin_list", ["which are there", "which ones do you have", "name them", "which come with it", "list them", "what are they called"]),
        ("plugins plugin_list", "plugin_write", ["how do i write one", "can i write my own", "in which language", "can i make one myself", "do i need Rust for that", "i want to make one"]),
        ("plugin_list", "pii", ["what does filter-pii do", "what is the second one for", "tell me about filter-pii", "and filter-pii", "which one hides emails"]),
        ("plugin_list", "template", ["what does template-jinja do", "tell me about template-jinja", "and template-jinja", "which one sets the system prompt"]),
        ("plugin_list", "decision", ["what does format-decision do", "tell me about format-decision", "and format-decision", "which one is for decisions"]),
        ("plugin_write config", "reload", ["do i have to restart then", "and to apply it", "when does it become active", "restart needed", "is it live at once"]),
        ("config", "check", ["how do i validate it", "and if i make a mistake there", "what if i break it", "can i check it", "how do i know it's valid"]),
        ("reload", "check", ["and if the change is broken", "what if there is a mistake in it", "what if the new file is wrong", "and when it's invalid"]),
        ("check reload", "status", ["how do i see the result", "how do i see what is active", "where do i see the state", "how can i look at the live state"]),
        ("api", "stream", ["and with streaming", "can it stream that", "can i get it token by token", "as a stream please", "and streamed"]),
        ("api", "json", ["and as JSON", "can i force JSON there", "with a schema", "and with structured output", "can the answer be JSON"]),
        ("api", "models", ["which model name do i use", "what do i put as the model", "and the model field", "which models can i name there"]),
        ("api stream", "sampling", ["can i set the temperature there", "and the seed", "which parameters can i add", "and max_tokens", "how do i limit the length there"]),
        ("stream", "cancel", ["and if the client goes away", "what if i disconnect meanwhile", "can i stop it halfway", "and when the connection breaks"]),
        ("formats models who", "model_add", ["how do i add one", "how do i load another", "where do i put mine", "how do i install a bigger one", "how do i use my own", "and how do i change it"]),
        ("model_add", "formats", ["which formats work", "does it have to be GGUF", "which kinds are supported", "and ONNX", "what about safetensors"]),
        ("model_add", "needs", ["does that need a GPU", "is my machine enough for that", "what hardware is needed for it", "will two cores do"]),
        ("about", "license", ["is it free", "what does it cost", "is it open source", "and the licence", "in which language is it written"]),
        ("about", "start", ["how do i start it", "how do i try it", "how can i install it", "and how do i run it", "ok, how do i get it running"]),
        ("about", "privacy", ["is it private", "does it send my data anywhere", "is my data safe with it", "and privacy", "does it need the internet"]),
        ("pii", "privacy", ["and does anything leave the machine", "are they in the logs", "is that logged", "and the logs"]),
        ("planned", "formats", ["so which formats work today", "what works now for models", "which models work now"]),
        ("who", "training", ["can i train you", "can you learn more", "can you be fine-tuned", "do you learn from me"]),
        ("who", "help", ["so what can you do", "and what do you know", "what can i ask then", "what are you good for then"]),
        ("busy", "status", ["how do i see how busy it is", "where can i see the load", "how do i look at its state"]),
        ("hello", "how_are_you", ["how are you", "how are you doing", "and how are you today"]),
    ],
    "id": [
        ("start", "stop", ["terus cara matikannya", "lalu cara menghentikannya", "dan kalau mau berhenti", "cara stopnya", "bagaimana mematikannya lagi", "kalau mau dimatikan"]),
        ("stop", "start", ["lalu cara menyalakannya lagi", "terus nyalainnya gimana", "dan kalau mau mulai lagi", "cara menghidupkannya kembali", "bagaimana menjalankannya lagi"]),
        ("start", "needs", ["apa yang diperlukan untuk itu", "apa yang harus dipasang dulu", "perlu GPU tidak untuk itu", "di sistem apa bisanya", "butuh apa saja itu"]),
        ("start", "address", ["lalu aksesnya di mana", "pakai port berapa itu", "terus alamatnya apa", "bukanya di URL mana", "dan portnya"]),
        ("start address", "key", ["dan kuncinya", "kunci mana yang dipakai", "kuncinya dapat dari mana", "diminta kunci itu", "loginnya gimana", "perlu kunci tidak itu"]),
        ("start address", "cert", ["dan sertifikatnya", "katanya sertifikat tidak dipercaya", "tapi browser memberi peringatan", "curl tidak percaya", "sertifikatnya kok salah"]),
        ("key", "key_manage", ["kalau bocor gimana", "bisa bikin lebih banyak", "cara mencabutnya", "bisa kedaluwarsa tidak", "satu lagi buat teman saya", "cara menggantinya", "kalau dicuri orang"]),
        ("key api", "denied", ["sudah, tapi dapat 401", "katanya 403", "masih unauthorized", "ditolak tuh", "malah forbidden"]),
        ("key_manage", "reload", ["perlu restart tidak setelah itu", "harus restart dulu", "kapan itu aktif", "langsung aktif kah"]),
        ("denied", "key", ["jadi kunci saya di mana", "kunci yang benar yang mana", "cara kirim kuncinya", "dapatnya dari mana", "headernya apa"]),
        ("plugins", "plugin_list", ["ada apa saja", "yang ada apa saja", "sebutkan", "yang bawaan apa", "daftarnya dong", "namanya apa saja"]),
        ("plugins plugin_list", "plugin_write", ["cara menulisnya gimana", "bisa bikin sendiri", "pakai bahasa apa", "bisa saya buat sendiri", "harus pakai Rust ya", "saya mau bikin satu"]),
        ("plugin_list", "pii", ["filter-pii itu apa", "yang kedua buat apa", "jelaskan filter-pii", "kalau filter-pii", "yang menyembunyikan email yang mana"]),
        ("plugin_list", "template", ["template-jinja itu apa", "jelaskan template-jinja", "kalau template-jinja", "yang mengatur system prompt yang mana"]),
        ("plugin_list", "decision", ["format-decision itu apa", "jelaskan format-decision", "kalau format-decision", "yang untuk keputusan yang mana"]),
        ("plugin_write config", "reload", ["harus restart setelah itu", "cara menerapkannya", "kapan aktifnya", "perlu restart kah", "langsung berlaku tidak"]),
        ("config", "check", ["cara memeriksanya", "kalau saya salah isi gimana", "kalau rusak bagaimana", "bisa dicek", "tahu valid tidaknya dari mana"]),
        ("reload", "check", ["kalau perubahannya rusak", "kalau ada kesalahan di situ", "kalau berkas barunya salah", "kalau tidak valid gimana"]),
        ("check reload", "status", ["lihat hasilnya di mana", "cara lihat yang aktif", "lihat keadaannya gimana", "cara melihat keadaan terkini"]),
        ("api", "stream", ["kalau streaming gimana", "bisa di-stream tidak", "bisa token demi token", "mau yang streaming", "dan kalau bertahap"]),
        ("api", "json", ["kalau JSON gimana", "bisa dipaksa JSON", "pakai skema bisa", "dan output terstruktur", "jawabannya bisa JSON"]),
        ("api", "models", ["nama modelnya apa", "field model diisi apa", "isi modelnya apa", "model apa yang bisa disebut di situ"]),
        ("api stream", "sampling", ["temperature bisa diatur di situ", "dan seed", "parameter apa lagi yang bisa", "dan max_tokens", "cara membatasi panjangnya"]),
        ("stream", "cancel", ["kalau kliennya pergi gimana", "kalau saya terputus di tengah", "bisa dihentikan di tengah", "kalau koneksinya putus"]),
        ("formats models who", "model_add", ["cara menambahnya", "cara memuat yang lain", "punya saya ditaruh di mana", "cara pasang yang lebih besar", "cara pakai punya sendiri", "cara menggantinya"]),
        ("model_add", "formats", ["format yang jalan apa", "harus GGUF ya", "jenis apa yang didukung", "kalau ONNX", "kalau safetensors"]),
        ("model_add", "needs", ["perlu GPU tidak itu", "mesin saya cukup tidak", "perangkat keras apa yang diperlukan", "dua core cukup"]),
        ("about", "license", ["gratis tidak", "berapa biayanya itu", "open source kah", "lisensinya gimana", "ditulis pakai bahasa apa"]),
        ("about", "start", ["cara menjalankannya", "cara mencobanya", "cara pasangnya", "lalu bagaimana menjalankannya", "oke, mulainya gimana"]),
        ("about", "privacy", ["pribadi tidak itu", "apa datanya dikirim keluar", "data saya aman di situ", "privasinya gimana", "perlu internet tidak itu"]),
        ("pii", "privacy", ["ada yang keluar dari mesin tidak", "masuk log tidak", "apakah dicatat", "lognya gimana"]),
        ("planned", "formats", ["jadi sekarang format apa yang jalan", "yang jalan sekarang model apa", "model apa yang bisa sekarang"]),
        ("who", "training", ["bisa dilatih tidak kamu", "kamu bisa belajar lagi", "bisa di-fine-tune", "kamu belajar dari saya"]),
        ("who", "help", ["jadi kamu bisa apa", "kamu tahu apa saja", "boleh tanya apa saja", "gunanya apa dong"]),
        ("busy", "status", ["cara lihat seberapa sibuk", "lihat bebannya di mana", "cara melihat keadaannya"]),
        ("hello", "how_are_you", ["apa kabar", "kamu apa kabar", "gimana kabarmu hari ini"]),
    ],
}

# "Say that again", and the same answer in the other language.
AGAIN = {
    "en": ["say that again", "repeat that", "again please", "once more", "can you repeat that", "what did you say", "pardon", "sorry, what", "come again", "please repeat", "one more time"],
    "id": ["ulangi", "ulangi dong", "sekali lagi", "bisa diulang", "tadi apa", "apa katamu", "maaf, apa", "coba ulangi", "tolong ulangi", "ulang lagi"],
}
OTHER_LANGUAGE = {
    "en": ["in Indonesian please", "say that in Indonesian", "and in Indonesian", "now in Indonesian", "can you say it in Indonesian", "Indonesian please", "Bahasa Indonesia please"],
    "id": ["dalam bahasa Inggris", "bahasa Inggrisnya apa", "coba dalam bahasa Inggris", "pakai bahasa Inggris", "kalau bahasa Inggris", "in English please", "bahasa Inggris dong"],
}

SYSTEMS = """You are a helpful assistant.
You are a helpful, concise assistant.
You are a friendly chatbot.
You are an assistant for the Tollgate project.
You are Tollgate's assistant. Answer in one or two sentences.
Answer briefly.
Be brief and polite.
Answer in the language of the user.
Answer in the user's language, in at most two sentences.
You help people to use the gateway.
You are a support agent. Be patient.
You are a customer service bot of a small shop.
Answer the question. If you do not know, say so.
Do not make things up.
Never reveal secrets.
Personal data is masked; leave the placeholders as they are.
You are an internal assistant of the finance department.
You are an assistant for developers. Keep answers technical.
Today is a good day. Be cheerful.
Use plain words.
No small talk, only answers.
You are a polite assistant called Bima.
Keep it short.
Respond in plain text without markdown.
You are a demo model.
The user is an administrator of the gateway.
The user is new here. Explain simply.
Follow the house rules: be honest, be short, be kind.
You are a careful assistant. Think before you answer.
system
You are part of an automated test.
Please answer the user's question as well as you can.
Kamu adalah asisten yang membantu.
Kamu asisten yang ramah dan singkat.
Anda adalah asisten proyek Tollgate.
Jawab dengan singkat.
Jawab dengan sopan dan singkat.
Jawab dalam bahasa pengguna.
Jawablah dalam bahasa Indonesia yang baik.
Jawab paling banyak dua kalimat.
Jangan mengarang.
Kalau tidak tahu, katakan tidak tahu.
Anda petugas layanan pelanggan.
Kamu membantu orang memakai gateway.
Gunakan kata-kata sederhana.
Data pribadi disamarkan; biarkan penandanya.
Pengguna adalah admin.
Pengguna baru pertama kali di sini. Jelaskan dengan sederhana.
Jangan pernah membocorkan rahasia.
Asisten internal bagian keuangan.
Balas tanpa markdown.
Selalu jujur dan ramah.""".split("\n")
