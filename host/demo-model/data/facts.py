"""The closed list of short facts that the demo model knows, in English and Indonesian.

A group (capitals, days, months) is a set of frames filled with entities; a single fact has
whole wordings of its own. What lies just outside a group (other countries, other animals)
is asked with the same frames and answered with the fallback, so that the edge is learnt.
"""

# English name, Indonesian name, English capital, Indonesian capital.
CAPITALS = [
    ("Indonesia", "Indonesia", "Jakarta", "Jakarta"),
    ("Malaysia", "Malaysia", "Kuala Lumpur", "Kuala Lumpur"),
    ("Thailand", "Thailand", "Bangkok", "Bangkok"),
    ("Vietnam", "Vietnam", "Hanoi", "Hanoi"),
    ("the Philippines", "Filipina", "Manila", "Manila"),
    ("Singapore", "Singapura", "Singapore", "Singapura"),
    ("Japan", "Jepang", "Tokyo", "Tokyo"),
    ("South Korea", "Korea Selatan", "Seoul", "Seoul"),
    ("China", "Tiongkok", "Beijing", "Beijing"),
    ("India", "India", "New Delhi", "New Delhi"),
    ("Australia", "Australia", "Canberra", "Canberra"),
    ("New Zealand", "Selandia Baru", "Wellington", "Wellington"),
    ("France", "Prancis", "Paris", "Paris"),
    ("Germany", "Jerman", "Berlin", "Berlin"),
    ("Italy", "Italia", "Rome", "Roma"),
    ("Spain", "Spanyol", "Madrid", "Madrid"),
    ("Portugal", "Portugal", "Lisbon", "Lisbon"),
    ("England", "Inggris", "London", "London"),
    ("Ireland", "Irlandia", "Dublin", "Dublin"),
    ("the Netherlands", "Belanda", "Amsterdam", "Amsterdam"),
    ("Belgium", "Belgia", "Brussels", "Brussel"),
    ("Austria", "Austria", "Vienna", "Wina"),
    ("Switzerland", "Swiss", "Bern", "Bern"),
    ("Poland", "Polandia", "Warsaw", "Warsawa"),
    ("Russia", "Rusia", "Moscow", "Moskow"),
    ("Ukraine", "Ukraina", "Kyiv", "Kyiv"),
    ("Greece", "Yunani", "Athens", "Athena"),
    ("Turkey", "Turki", "Ankara", "Ankara"),
    ("Egypt", "Mesir", "Cairo", "Kairo"),
    ("Kenya", "Kenya", "Nairobi", "Nairobi"),
    ("Saudi Arabia", "Arab Saudi", "Riyadh", "Riyadh"),
    ("Norway", "Norwegia", "Oslo", "Oslo"),
    ("Sweden", "Swedia", "Stockholm", "Stockholm"),
    ("Denmark", "Denmark", "Copenhagen", "Kopenhagen"),
    ("Finland", "Finlandia", "Helsinki", "Helsinki"),
    ("Canada", "Kanada", "Ottawa", "Ottawa"),
    ("the United States", "Amerika Serikat", "Washington, D.C.", "Washington, D.C."),
    ("Mexico", "Meksiko", "Mexico City", "Mexico City"),
    ("Brazil", "Brasil", "Brasilia", "Brasilia"),
    ("Argentina", "Argentina", "Buenos Aires", "Buenos Aires"),
]
# Other names under which people ask for the same country.
COUNTRY_ALIASES = {
    "en": {"the Netherlands": ["Holland", "Netherlands"], "the United States": ["the USA", "USA", "America", "the US"],
           "England": ["the UK", "Great Britain", "Britain"], "the Philippines": ["Philippines"], "South Korea": ["Korea"]},
    "id": {"Amerika Serikat": ["Amerika", "AS", "USA"], "Tiongkok": ["Cina", "China"], "Prancis": ["Perancis"],
           "Korea Selatan": ["Korea", "Korsel"], "Selandia Baru": ["New Zealand"], "Inggris": ["Inggris Raya"]},
}
# Places whose capital the model does not know.
UNKNOWN_PLACES = {
    "en": "Peru, Chile, Colombia, Ghana, Nigeria, Angola, Mali, Chad, Sudan, Uganda, Nepal, Bhutan, Mongolia, Iceland, Malta, "
          "Cyprus, Estonia, Latvia, Romania, Bulgaria, Serbia, Croatia, Cuba, Jamaica, Haiti, Panama, Bolivia, Texas, Bavaria, "
          "California, Fiji, Samoa, Laos, Cambodia, Myanmar, Sri Lanka, Pakistan, Iran, Iraq, Jordan, Qatar, Oman, Yemen, Morocco".split(", "),
    "id": "Peru, Cile, Kolombia, Ghana, Nigeria, Angola, Mali, Sudan, Uganda, Nepal, Mongolia, Islandia, Malta, Siprus, Estonia, "
          "Rumania, Bulgaria, Serbia, Kroasia, Kuba, Jamaika, Panama, Bolivia, Texas, Fiji, Laos, Kamboja, Myanmar, Sri Lanka, "
          "Pakistan, Iran, Irak, Yordania, Qatar, Oman, Yaman, Maroko, Jawa Barat, Sumatera Utara, Bali, Papua, Aceh".split(", "),
}
CAPITAL_FRAMES = {
    "en": ["what is the capital of {}", "what's the capital of {}", "capital of {}", "the capital of {}", "which city is the capital of {}",
           "name the capital of {}", "tell me the capital of {}", "do you know the capital of {}", "{} capital", "what is {}'s capital",
           "what city is the capital of {}", "can you tell me the capital of {}", "i need the capital of {}", "capital city of {}",
           "what is the capital city of {}", "which is the capital of {}", "{}, what is its capital", "i forgot the capital of {}",
           "quiz: the capital of {}", "what is the name of the capital of {}", "is there a capital of {} and which one",
           "my homework asks for the capital of {}", "{} has which capital", "where is the government of {}, in which capital"],
    "id": ["apa ibu kota {}", "ibu kota {}", "ibukota {}", "apa ibukota {}", "ibu kota {} apa", "ibukota {} apa ya", "sebutkan ibu kota {}",
           "apa nama ibu kota {}", "kota apa ibu kota {}", "kamu tahu ibu kota {}", "tahukah kamu ibu kota {}", "ibu kota dari {}",
           "ibu kota negara {}", "apa ibu kota negara {}", "{} ibu kotanya apa", "{} ibukotanya mana", "tolong sebutkan ibu kota {}",
           "saya lupa ibu kota {}", "PR saya: ibu kota {}", "ibukota {} di mana", "ibukotanya {} apa sih", "nama ibukota {}",
           "kota mana yang jadi ibu kota {}", "kuis: ibu kota {}"],
}
CAPITAL_FOLLOWUPS = {
    "en": ["and {}", "and of {}", "what about {}", "how about {}", "and the one of {}", "and for {}", "now {}", "{} too", "same for {}", "ok, {}"],
    "id": ["kalau {}", "dan {}", "bagaimana dengan {}", "gimana kalau {}", "{} juga", "terus {}", "sekarang {}", "lalu {}", "kalo {} apa", "oke, {}"],
}
CAPITAL_ANSWER = {"en": "The capital of {} is {}.", "id": "Ibu kota {} adalah {}."}

DAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "id": ["Senin", "Selasa", "Rabu", "Kamis", "Jumat", "Sabtu", "Minggu"],
}
MONTHS = {
    "en": ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"],
    "id": ["Januari", "Februari", "Maret", "April", "Mei", "Juni", "Juli", "Agustus", "September", "Oktober", "November", "Desember"],
}
# (kind, language) -> (answer, frames). {0} is what was asked, {1} what is answered.
DAY_FRAMES = {
    ("day_after", "en"): ("{1} comes after {0}.", [
        "what day comes after {}", "what comes after {}", "which day follows {}", "what day is after {}", "the day after {}", "next day after {}",
        "what is the day after {}", "if today is {}, what is tomorrow", "today is {}, which day is tomorrow", "{}, and then", "after {} comes",
        "tell me the day after {}", "what follows {}", "which day do we have after {}"]),
    ("day_before", "en"): ("{1} comes before {0}.", [
        "what day comes before {}", "what comes before {}", "which day is before {}", "the day before {}", "what is the day before {}",
        "if today is {}, what was yesterday", "today is {}, what day was yesterday", "before {} comes", "tell me the day before {}", "which day precedes {}"]),
    ("day_after", "id"): ("Setelah {0} adalah {1}.", [
        "hari apa setelah {}", "setelah {} hari apa", "sesudah {} hari apa", "hari sesudah {}", "habis {} hari apa", "hari setelah {} apa",
        "kalau hari ini {}, besok hari apa", "hari ini {}, besok apa", "besoknya {} hari apa", "apa hari setelah {}", "abis {} apa", "lepas {} hari apa"]),
    ("day_before", "id"): ("Sebelum {0} adalah {1}.", [
        "hari apa sebelum {}", "sebelum {} hari apa", "hari sebelum {}", "sebelumnya {} hari apa", "kalau hari ini {}, kemarin hari apa",
        "hari ini {}, kemarin apa", "apa hari sebelum {}", "sehari sebelum {} apa"]),
}
MONTH_FRAMES = {
    ("month_after", "en"): ("{1} comes after {0}.", [
        "what month comes after {}", "which month follows {}", "the month after {}", "what is the month after {}", "next month after {}",
        "which month is after {}", "what month do we have after {}", "tell me the month after {}"]),
    ("month_after", "id"): ("Setelah {0} adalah {1}.", [
        "bulan apa setelah {}", "setelah {} bulan apa", "sesudah bulan {} bulan apa", "bulan setelah {}", "habis {} bulan apa",
        "apa bulan setelah {}", "bulan berikutnya setelah {}", "abis bulan {} apa"]),
}
# Frames whose subject is unknown; the answer is the fallback.
UNKNOWN_FRAMES = {
    "en": (["what sound does a {} make", "how many legs does a {} have", "what colour is a {}", "how long does a {} live", "what does a {} eat",
            "how big is a {}", "how many {}s are there in the world", "where does a {} live", "how much does a {} weigh", "why does a {} do that"],
           "giraffe, whale, penguin, zebra, kangaroo, crocodile, hamster, parrot, squirrel, tortoise, flamingo, hedgehog, lobster, shark, goldfish, "
           "camel, panda, koala, moth, worm, jellyfish, dinosaur, dragon, car, house, tree, table, guitar, ship, tractor".split(", ")),
    "id": (["suara {} bagaimana", "{} kakinya berapa", "apa warna {}", "berapa umur {}", "{} makan apa", "sebesar apa {}", "ada berapa {} di dunia",
            "{} hidup di mana", "berapa berat {}", "kenapa {} begitu"],
           "jerapah, paus, pinguin, zebra, kanguru, buaya, hamster, beo, tupai, kura-kura, landak, lobster, hiu, unta, panda, koala, cacing, "
           "ubur-ubur, dinosaurus, naga, komodo, orang utan, mobil, rumah, meja, gitar, kapal, traktor, pohon mangga".split(", ")),
}
