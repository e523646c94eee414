"""Word lists for the synthetic dialogues: countries, names, things, verbs.

Plain data, no logic. `data.py` splits every list into a training part and a
held-out part by hashing, so adding a word here needs no other change.
"""

# (country, capital). Both as an English speaker would write them.
CAPITALS = [tuple(line.split("=")) for line in """\
Afghanistan=Kabul
Albania=Tirana
Algeria=Algiers
Andorra=Andorra la Vella
Angola=Luanda
Antigua and Barbuda=Saint John's
Argentina=Buenos Aires
Armenia=Yerevan
Australia=Canberra
Austria=Vienna
Azerbaijan=Baku
the Bahamas=Nassau
Bahrain=Manama
Bangladesh=Dhaka
Barbados=Bridgetown
Belarus=Minsk
Belgium=Brussels
Belize=Belmopan
Benin=Porto-Novo
Bhutan=Thimphu
Bolivia=Sucre
Bosnia and Herzegovina=Sarajevo
Botswana=Gaborone
Brazil=Brasilia
Brunei=Bandar Seri Begawan
Bulgaria=Sofia
Burkina Faso=Ouagadougou
Burundi=Gitega
Cambodia=Phnom Penh
Cameroon=Yaounde
Canada=Ottawa
Cape Verde=Praia
the Central African Republic=Bangui
Chad=N'Djamena
Chile=Santiago
China=Beijing
Colombia=Bogota
Comoros=Moroni
Costa Rica=San Jose
Croatia=Zagreb
Cuba=Havana
Cyprus=Nicosia
the Czech Republic=Prague
the Democratic Republic of the Congo=Kinshasa
Denmark=Copenhagen
Djibouti=Djibouti City
Dominica=Roseau
the Dominican Republic=Santo Domingo
East Timor=Dili
Ecuador=Quito
Egypt=Cairo
El Salvador=San Salvador
Equatorial Guinea=Malabo
Eritrea=Asmara
Estonia=Tallinn
Eswatini=Mbabane
Ethiopia=Addis Ababa
Fiji=Suva
Finland=Helsinki
France=Paris
Gabon=Libreville
the Gambia=Banjul
Georgia=Tbilisi
Germany=Berlin
Ghana=Accra
Greece=Athens
Grenada=Saint George's
Guatemala=Guatemala City
Guinea=Conakry
Guinea-Bissau=Bissau
Guyana=Georgetown
Haiti=Port-au-Prince
Honduras=Tegucigalpa
Hungary=Budapest
Iceland=Reykjavik
India=New Delhi
Indonesia=Jakarta
Iran=Tehran
Iraq=Baghdad
Ireland=Dublin
Israel=Jerusalem
Italy=Rome
Ivory Coast=Yamoussoukro
Jamaica=Kingston
Japan=Tokyo
Jordan=Amman
Kazakhstan=Astana
Kenya=Nairobi
Kiribati=South Tarawa
Kosovo=Pristina
Kuwait=Kuwait City
Kyrgyzstan=Bishkek
Laos=Vientiane
Latvia=Riga
Lebanon=Beirut
Lesotho=Maseru
Liberia=Monrovia
Libya=Tripoli
Liechtenstein=Vaduz
Lithuania=Vilnius
Luxembourg=Luxembourg City
Madagascar=Antananarivo
Malawi=Lilongwe
Malaysia=Kuala Lumpur
the Maldives=Male
Mali=Bamako
Malta=Valletta
the Marshall Islands=Majuro
Mauritania=Nouakchott
Mauritius=Port Louis
Mexico=Mexico City
Micronesia=Palikir
Moldova=Chisinau
Monaco=Monaco City
Mongolia=Ulaanbaatar
Montenegro=Podgorica
Morocco=Rabat
Mozambique=Maputo
Myanmar=Naypyidaw
Namibia=Windhoek
Nauru=Yaren
Nepal=Kathmandu
the Netherlands=Amsterdam
New Zealand=Wellington
Nicaragua=Managua
Niger=Niamey
Nigeria=Abuja
North Korea=Pyongyang
North Macedonia=Skopje
Norway=Oslo
Oman=Muscat
Pakistan=Islamabad
Palau=Ngerulmud
Palestine=Ramallah
Panama=Panama City
Papua New Guinea=Port Moresby
Paraguay=Asuncion
Peru=Lima
the Philippines=Manila
Poland=Warsaw
Portugal=Lisbon
Qatar=Doha
the Republic of the Congo=Brazzaville
Romania=Bucharest
Russia=Moscow
Rwanda=Kigali
Saint Kitts and Nevis=Basseterre
Saint Lucia=Castries
Saint Vincent and the Grenadines=Kingstown
Samoa=Apia
San Marino=the City of San Marino
Sao Tome and Principe=Sao Tome
Saudi Arabia=Riyadh
Senegal=Dakar
Serbia=Belgrade
Seychelles=Victoria
Sierra Leone=Freetown
Singapore=Singapore
Slovakia=Bratislava
Slovenia=Ljubljana
the Solomon Islands=Honiara
Somalia=Mogadishu
South Africa=Pretoria
South Korea=Seoul
South Sudan=Juba
Spain=Madrid
Sri Lanka=Sri Jayawardenepura Kotte
Sudan=Khartoum
Suriname=Paramaribo
Sweden=Stockholm
Switzerland=Bern
Syria=Damascus
Taiwan=Taipei
Tajikistan=Dushanbe
Tanzania=Dodoma
Thailand=Bangkok
Togo=Lome
Tonga=Nuku'alofa
Trinidad and Tobago=Port of Spain
Tunisia=Tunis
Turkey=Ankara
Turkmenistan=Ashgabat
Tuvalu=Funafuti
Uganda=Kampala
Ukraine=Kyiv
the United Arab Emirates=Abu Dhabi
the United Kingdom=London
the United States=Washington, D.C.
Uruguay=Montevideo
Uzbekistan=Tashkent
Vanuatu=Port Vila
Vatican City=Vatican City
Venezuela=Caracas
Vietnam=Hanoi
Yemen=Sana'a
Zambia=Lusaka
Zimbabwe=Harare""".splitlines()]

# Other names people use for the same country.
ALIASES = {
    "the United States": ["the USA", "the US", "America", "the United States of America"],
    "the United Kingdom": ["the UK", "Great Britain", "Britain", "England"],
    "the Czech Republic": ["Czechia"],
    "the Netherlands": ["Holland"],
    "Ivory Coast": ["Cote d'Ivoire"],
    "East Timor": ["Timor-Leste"],
    "Turkey": ["Turkiye"],
    "Myanmar": ["Burma"],
    "the United Arab Emirates": ["the UAE"],
    "Cape Verde": ["Cabo Verde"],
    "Eswatini": ["Swaziland"],
    "the Democratic Republic of the Congo": ["the DRC"],
}

NOT_COUNTRIES = """Atlantis Narnia Mordor Wakanda Genovia Texas California Florida Ohio Bavaria Scotland Wales Mars Venus
Jupiter Europe Africa Asia Antarctica Ruritania Utopia Gondor Rohan Westeros Lilliput Elbonia Freedonia Latveria Zamunda
Greenland Hawaii Alaska Quebec Sicily Tuscany Catalonia Tibet Siberia Transylvania Avalon Camelot Arendelle Hogwarts""".split()
NOT_CAPITALS = """Sydney Milan Barcelona Munich Lyon Rotterdam Geneva Zurich Hamburg Toronto Vancouver Chicago Boston Dallas
Seattle Mumbai Shanghai Osaka Kyoto Istanbul Karachi Lagos Casablanca Marrakesh Antwerp Porto Seville Naples Venice Turin
Krakow Gdansk Gothenburg Bergen Aarhus Manchester Liverpool Glasgow Melbourne Auckland Medellin Guayaquil Cusco""".split()

FEMALE = """Mary Anna Emma Olivia Sophia Mia Amelia Ella Grace Lily Chloe Zoe Nora Hannah Lucy Ruby Alice Eva Ivy Clara Rosa
Maya Leah Sara Julia Elena Laura Nina Lena Ada Iris Jane Kate Molly Daisy Poppy Freya Isla Elsie Matilda Florence Harriet
Edith Beatrice Agnes Martha Esther Naomi Rachel Miriam Judith Tamar Yasmin Leila Fatima Amina Aisha Zara Noor Layla Samira
Priya Anjali Meera Kavya Divya Lakshmi Sunita Rani Asha Mei Lin Yuki Hana Sakura Keiko Aiko Naoko Ming Xia Jing Ingrid
Astrid Sigrid Linnea Maja Saga Karin Elsa Greta Heidi Ursula Petra Katja Olga Irina Tatiana Svetlana Natasha Daria Vera
Ludmila Carmen Lucia Paula Marta Ines Pilar Sofia Valentina Camila Gabriela Mariana Isabel Teresa Bianca Chiara Giulia
Francesca Paola Colette Amelie Celine Margot Juliette Simone Brigitte Odette Helen Susan Linda Karen Nancy Betty Carol
Diane Wendy Tina Gina Dana Jill Amy Holly Robin Penny Fiona Moira Bridget Siobhan Nell Tess Willa Juno Opal Hazel Fern
Wren Cora Della Flora Thea Adele Estelle Ottilie Winnie Mabel Nettie Elvira Rosalind Cordelia Phoebe Daphne Chidi Ngozi
Adaeze Wanjiru Thandi Zuri Imani Nala Amara Kiara""".split()
MALE = """John James William Henry George Thomas Jack Oliver Noah Liam Lucas Ethan Leo Max Sam Ben Tom Tim Jim Bob Dan Adam
Alan Peter Paul Mark Luke Simon David Daniel Michael Robert Richard Charles Edward Frank Fred Arthur Walter Albert Ernest
Harold Ralph Oscar Felix Hugo Otto Karl Hans Fritz Emil Anton Viktor Ivan Boris Dmitri Igor Sergei Yuri Oleg Pavel Marek
Jan Piotr Tomas Milan Luka Marko Stefan Nikola Omar Ali Hassan Ahmed Yusuf Ibrahim Khalid Tariq Samir Karim Rashid Bilal
Arjun Rahul Vikram Raj Sanjay Anil Ravi Kiran Rohan Dev Wei Hiroshi Kenji Takeshi Satoshi Haruki Jun Bao Duc Minh Erik Lars
Sven Olaf Bjorn Magnus Gustav Axel Nils Anders Pedro Carlos Diego Miguel Jose Luis Pablo Javier Mateo Andres Rafael Bruno
Marco Luca Paolo Matteo Giorgio Enzo Dario Pierre Louis Henri Marcel Gaston Remy Theo Jules Bernard Kevin Brian Gary Keith
Scott Eric Greg Jeff Doug Neil Craig Derek Trevor Nigel Angus Hamish Callum Finn Rory Declan Owen Rhys Dylan Gareth Kofi
Kwame Tunde Emeka Obi Jabari Sipho Themba Tendai Amadou Moussa Elias Jonas Tobias Silas Caleb Joshua Isaac Jacob Aaron
Gideon Ezra Abel Seth Nathan Julian Adrian Damian Fabian Casper Jasper Rufus Barnaby Rupert Edmund Percy Alfie Archie
Stanley Wilfred Ned Gus Ike Abe Roy Ray Vince Wade Clint Brock Chase""".split()
SURNAMES = """Smith Jones Taylor Brown Evans Wilson Johnson Roberts Walker Wright Robinson Thompson White Hughes Edwards Green
Hall Wood Harris Lewis Martin Jackson Clarke Clark Turner Hill Scott Cooper Morris Ward Moore King Watson Baker Harrison
Morgan Patel Young Allen Mitchell Anderson Phillips Lee Bell Parker Davis Bennett Miller Cook Shaw Cox Carter Lovelace
Turing Hopper Curie Garcia Lopez Rossi Bianchi Novak Kowalski Muller Schmidt Weber Fischer Jensen Hansen Olsen Larsen
Tanaka Suzuki Sato Kim Park Chen Wang Singh Kumar Sharma Khan Okafor Mensah Silva Santos Costa Moreau Dubois Laurent""".split()

CITIES = """London Paris Berlin Madrid Rome Oslo Vienna Prague Lisbon Dublin Athens Warsaw Helsinki Stockholm Copenhagen
Amsterdam Brussels Budapest Zurich Geneva Milan Naples Turin Venice Florence Bologna Seville Valencia Porto Lyon Nice
Marseille Bordeaux Toulouse Hamburg Munich Cologne Frankfurt Leipzig Dresden Krakow Gdansk Riga Tallinn Vilnius Kyiv Lviv
Odessa Moscow Istanbul Ankara Cairo Tunis Rabat Lagos Accra Nairobi Kampala Lusaka Harare Durban Tokyo Osaka Kyoto Sapporo
Seoul Busan Beijing Shanghai Shenzhen Bangkok Hanoi Manila Jakarta Delhi Mumbai Chennai Kolkata Lahore Karachi Kabul Tehran
Baghdad Dubai Doha Riyadh Sydney Melbourne Perth Brisbane Adelaide Auckland Wellington Toronto Montreal Vancouver Calgary
Ottawa Boston Chicago Denver Seattle Portland Austin Dallas Houston Miami Atlanta Phoenix Detroit Memphis Nashville Tampa
Lima Quito Bogota Santiago Havana Caracas Montevideo Manchester Liverpool Leeds Bristol Glasgow Edinburgh Cardiff Belfast
Cork Galway York Bath Oxford Cambridge Exeter Norwich Bergen Trondheim Malmo Uppsala Turku Tampere Aarhus Odense Ghent
Bruges Antwerp Utrecht Rotterdam Delft Leiden Basel Bern Graz Linz Salzburg Brno Split Zagreb Ljubljana Sofia Varna
Bucharest Reykjavik Valletta Nicosia Springfield Salem Dover Fairview Ashford Milton Kingsport Redwood Lakeside""".split()
TWO_WORD_CITIES = ["New York", "San Francisco", "Los Angeles", "Buenos Aires", "Cape Town", "Hong Kong", "New Delhi",
                   "Mexico City", "Rio de Janeiro", "San Diego", "Las Vegas", "Salt Lake City", "Kuala Lumpur", "Tel Aviv",
                   "Saint Petersburg", "Santa Fe", "Port Louis", "New Orleans", "Den Haag", "Addis Ababa"]

COLOURS = """red blue green yellow orange purple pink brown black white grey teal turquoise violet indigo crimson scarlet gold
silver beige ivory navy maroon magenta lavender lilac olive amber coral peach mint cyan khaki bronze cream rose emerald
burgundy mustard charcoal salmon plum""".split()
FOODS = """pizza pasta rice bread soup salad cheese sushi curry tacos noodles pancakes waffles lasagna risotto dumplings
porridge chocolate chicken fish beans lentils hummus falafel paella goulash ramen stew toast omelette burgers chips
mushrooms potatoes spinach broccoli carrots popcorn sandwiches couscous gnocchi pie cake""".split()
FRUITS = """apples bananas oranges pears grapes cherries plums peaches lemons limes mangoes melons strawberries raspberries
blueberries kiwis figs dates apricots papayas""".split()
DRINKS = """tea coffee water milk juice lemonade cocoa cider soda smoothies espresso cappuccino matcha kombucha""".split()
ANIMALS = """fox rabbit bear mouse cat dog wolf owl frog duck hedgehog squirrel badger deer horse cow sheep goat pig hen goose
swan crow robin sparrow eagle penguin seal whale dolphin otter beaver turtle tortoise snail lion tiger elephant giraffe zebra
monkey panda koala kangaroo camel donkey mole bat crab lizard raccoon parrot hamster kitten puppy pony lamb chick cub
dragon unicorn ladybird bee butterfly""".split()
PETS = "cat dog rabbit hamster parrot goldfish turtle pony lizard ferret canary puppy kitten mouse snake".split()
SPORTS = """football tennis basketball cricket rugby hockey golf swimming running cycling rowing skiing sailing boxing judo
karate badminton volleyball baseball handball climbing surfing archery fencing yoga skating squash""".split()
HOBBIES = """painting reading cooking gardening knitting fishing hiking singing dancing photography chess baking sewing pottery
drawing writing woodwork origami birdwatching camping juggling gaming""".split()
INSTRUMENTS = """piano guitar violin cello flute drums trumpet harp clarinet saxophone oboe banjo ukulele accordion trombone
harmonica tuba organ bassoon mandolin""".split()
JOBS = """teacher doctor nurse farmer baker pilot engineer writer painter lawyer carpenter plumber chef gardener librarian
firefighter dentist driver sailor tailor musician scientist programmer photographer journalist architect electrician
mechanic translator designer student waiter barber banker clerk judge soldier actor dancer singer potter vet""".split()
PRODUCTS = """lamp chair table desk sofa bed shelf clock mirror rug kettle toaster blender mug plate bowl spoon knife pan pot
bottle bag backpack wallet belt hat cap scarf coat jacket shirt jumper dress skirt shoes boots sandals socks gloves watch
ring necklace phone laptop tablet monitor keyboard camera printer speaker headphones charger cable pen pencil notebook
book novel magazine map globe guitar drum ball bicycle scooter helmet tent torch lantern rope ladder hammer drill saw
bucket broom vase candle basket blanket pillow towel soap umbrella kite puzzle doll robot teapot""".split()
WORDS = """lantern river mountain cloud window garden bridge castle forest island harbor meadow thunder whisper pebble feather
marble copper velvet saffron compass anchor beacon cactus canyon cedar circus comet cricket dagger diamond domino ember
falcon fiddle galaxy ginger glacier hammock hazelnut hollow horizon igloo jasmine jigsaw juniper kernel kettle ladder lagoon
lemon lobster magnet maple mosaic mustang nectar nickel nutmeg oasis onyx orchard oyster paddle parcel pepper pickle pigeon
planet plaza pocket pumpkin quartz quilt quiver radish rocket saddle sandal shadow signal spiral sponge summit sunset temple
thistle ticket timber topaz tulip tundra tunnel turnip umbrella valley violet walnut willow winter wizard zephyr zipper
apple banana breeze butter button candle carpet cherry cotton dragon engine fabric flower fossil guitar hammer honey jacket
jungle ladder mirror monkey needle ocean pencil piano pirate pillow prairie puzzle rabbit ribbon sailor school silver sister
spider spring summer teacup tiger tomato turtle vanilla village volcano wagon water window yellow zebra""".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SEASONS = "spring summer autumn winter".split()
LANGUAGES = """English French German Spanish Italian Dutch Swedish Polish Greek Turkish Arabic Hindi Chinese Japanese Korean
Portuguese Russian Finnish Danish Norwegian Czech Hungarian Swahili Latin Hebrew Thai Welsh Irish""".split()
CURRENCIES = "EUR USD GBP JPY CHF SEK NOK DKK PLN CZK HUF CAD AUD NZD INR CNY KRW BRL MXN ZAR TRY".split()
BRANDS = "Volvo Fiat Toyota Honda Ford Skoda Saab Mazda Renault Opel Seat Kia Tesla Jeep Audi Nissan Subaru Peugeot".split()
ITEMS = """apples pears plums books pens coins stamps marbles cards eggs cookies sweets balloons shells stickers pencils cups
chairs flowers stones buttons keys toys oranges bananas tickets bottles boxes candles nails bricks beads fish hens sheep
tomatoes carrots photos letters songs points stars leaves cakes nuts""".split()

# Syllables for invented names and words, so that copying does not depend on
# the spelling of any list above.
ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pl pr qu r s sh sk sl st t th tr v w y z".split()
VOWELS = "a e i o u ai ea ee ia io oo ou".split()
CODAS = ["", "", "", "n", "r", "s", "l", "m", "t", "k", "x", "nd", "rt", "ck", "ng", "th", "lf"]

TOPICS = """quantum physics|the stock market|black holes|the French Revolution|photosynthesis|machine learning|the Roman Empire|
the moon landing|climate change|football results|the weather on Mars|Shakespeare|the Second World War|chemistry|DNA|
blockchain|the history of Japan|jazz music|Greek philosophy|the human brain|volcanoes|dinosaurs|the theory of relativity|
algebra|geometry|the pyramids|the Olympic Games|electric cars|nuclear power|the Great Wall of China|poetry|opera|
vaccines|gravity|inflation|the United Nations|chess openings|Python programming|Rust programming|JavaScript|databases|
the internet|wine|cooking rice|growing tomatoes|yoga|meditation|tax law|bitcoin|the Vikings|Napoleon|Albert Einstein|
Marie Curie|Leonardo da Vinci|Mozart|Beethoven|Picasso|the Beatles|Julius Caesar|Cleopatra|Isaac Newton|Charles Darwin|
Galileo|Aristotle|Plato|Abraham Lincoln|Queen Victoria|Mount Everest|the Amazon river|the Sahara|the Pacific Ocean|
the speed of light|the periodic table|prime numbers|calculus|trigonometry|logarithms|evolution|genetics|bacteria|
the solar system|comets|rainbows|earthquakes|tides|glaciers|coral reefs|rain forests|whales|ants|penguins|sharks|
the heart|the lungs|headaches|vitamins|sleep|exercise|a healthy breakfast|coffee|bread baking|car engines|jet engines|
bridges|skyscrapers|steam trains|the printing press|the telephone|radio waves|lasers|microchips|operating systems|
compilers|neural networks|transformers|GPUs|Linux|Windows|the cloud|cryptography|passwords|privacy|democracy|law|
economics|marketing|psychology|sociology|anthropology|linguistics|grammar|Latin|Esperanto|mythology|religion|ethics|
logic|paradoxes|time travel|aliens|ghosts|dreams|love|happiness|friendship|money|politics|elections|the news|fashion|
architecture|sculpture|photography|cinema|theatre|ballet|video games|board games|magic tricks|fishing|sailing|
mountaineering|skiing|marathon training|the rules of cricket|string theory|dark matter|quarks|enzymes|proteins""".replace("\n", "").split("|")

# Everyday words, for copying and so that the tokenizer knows them whole.
COMMON = sorted(set("""The and that have with this from they would there their what about which when make like time just know take people into year
your good some could them see other than then now look only come its over think also back after use two how our work first well
way even new want because any these give day most us great where much before through between under again never always often
because question answer number please write read speak listen learn teach language model computer machine data file text line
word sentence paragraph page title name list table key value string integer object array true false null error result
function class return import print input output user assistant system tool message request response server client token
start stop open close create delete update find search sort count add remove change move copy paste save load run test build
red orange yellow green blue purple black white big small long short high low fast slow old young early late hot cold warm
house home room door window kitchen garden street road city town village country world sea river lake mountain forest tree
flower animal bird fish dog cat horse cow food water bread milk coffee tea sugar salt fruit apple meat rice egg money price
mother father brother sister son daughter child friend man woman boy girl family school teacher student doctor office company
week month today tomorrow yesterday morning evening night hour minute second spring summer autumn winter
one two three four five six seven eight nine ten eleven twelve hundred thousand million half third quarter
able above across act add age agree air allow alone along angle animal answer appear area arm arrive art ask autumn away baby back
bag bank bar base bath bean bear beat beauty begin behind believe belong best better bit blood blow board body bone born bottle
bottom bowl branch brave break breath bright broad brush burn bus button cake call calm camp captain care carry case cause center
century certain chance chart check cheek chief choose church circle claim clean clear climb clock cloth cloud coast coat collect
color common complete contain control cool corn corner cost cotton cover create crop cross crowd cry current curve cut dance danger
dark deal decide deep degree desert design desk differ direct discuss divide double down dream dress drink drive drop dry duck dust
duty ear earth ease east edge effect eight either electric else engine enjoy enter equal escape exact example except exercise
expect experience explain eye face fact fair fall family famous farm fear feed feel field fight figure fill final finger finish
fire fit flag flat float floor flow follow foot force form forward free fresh front full fun game gas gather general gentle glad
glass gold govern grand grass gray grow guess guide gun hair hand happen hard hat head heart heat heavy held help hill history
hit hold hole honor hope hour huge human hunt hurry ice idea imagine inch include increase indicate industry insect instant iron
job join joke jump keep kill kind king kitchen knife knock lady land lamp late laugh law lay lead leaf least leave left leg length
lesson level lie life lift light limit line lip liquid little live log lone loud love luck main major map mark market master match
material matter meal mean measure meet melody melt member mention metal method middle mild mile mind mine miss mix modern moment
moon motion mouth multiply muscle music nation nature near necessary neck neighbor nerve nest net noise noon north nose note notice
noun observe ocean offer oil operate opinion order organ original owner oxygen pain pair paper parent part party pass past path
pattern pay peace people perhaps period phrase pick piece pilot pitch place plain plane planet plant plate play please plenty poem
point poor port pose position possible post pound power practice prepare present press pretty print prize probable problem process
produce proper protect proud provide pull push quart quick quiet quite race radio rail rain raise range rate reach ready real reason
receive record region repeat reply require rest result return rhythm rich ride right ring rise rock roll roof root rope rose round
row rub rule safe sail salad same sand scale school science score season seat second section seed seem select sense sentence
separate serve settle shade shape share sharp sheet shine ship shirt shop shore shoulder shout side sight sign silent simple sing
single sister size skill skin sky sleep slip smell smile smooth snow soap soft soil soldier solution solve song sound south space
speech speed spell spend spot spread square stand star state station stay steam steel step stick stone store storm story straight
strange stream stretch strong subject success sudden suit supply support surface surprise sweet swim symbol tail tall team teeth
temper term thick thin thing thought throw tie tiny tire together tone top total touch track trade train travel triangle trip
trouble truck true trust try tube turn twenty type uncle unit usual valley value vary verb view visit voice vowel wait walk wall
war wash watch wave wear weather weight west wheel whole wide wife wild win wind wing wire wish wonder wood worker worry yard
""".split()))
