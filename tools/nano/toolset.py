"""Made-up tools: how they are described, asked for and answered.

Each entry of TOOLS describes one kind of tool:

  names    ways to call it; some are held out (see data.py)
  about    descriptions
  params   (names, schema, descriptions, slot kind); the slot is named after the first name
  asks     what a user says; the slots in it become the arguments
  result   key -> slot kind of what the tool returns
  answers  the sentence said after the result

Besides these, `data.py` invents tools from VERBS and NOUNS.
"""

S, I, N = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def enum(*values):
    return {"type": "string", "enum": list(values)}


CITY = (["city", "location", "place", "town", "city_name"], S, ["The city", "Name of the city", "The city and nothing else", "City name, e.g. Paris", "The place to look up"], "city")

TOOLS = [
    dict(names=["get_weather", "weather", "weather_lookup", "get_current_weather", "fetch_weather", "current_weather", "getWeather", "check_weather", "city_weather", "weather_now"],
         about=["Get the current weather for a city.", "Returns the weather in a place", "Look up the weather.", "Get current weather"],
         params=[CITY, (["unit", "units", "scale"], enum("celsius", "fahrenheit"), ["Temperature unit", "The unit to use"], "unit?")],
         asks=["What is the weather in {city}?", "What's the weather like in {city}?", "How is the weather in {city} today?", "Is it raining in {city}?",
               "Weather in {city}", "Tell me the weather in {city}.", "What is the temperature in {city} in {unit}?", "How warm is it in {city}?",
               "Please check the weather in {city} in {unit}.", "What is the weather in {city} right now, in {unit}?", "Do I need an umbrella in {city}?",
               "Get the weather for {city}.", "Show me the weather for {city} in {unit}."],
         result={"temperature": "temp", "condition": "sky"},
         answers=["It is {temperature} degrees and {condition} in {city}."]),
    dict(names=["get_time", "current_time", "time_in_city", "get_local_time", "clock", "local_time", "getTime", "world_clock", "what_time"],
         about=["Get the local time in a city.", "Returns the current time", "Tells the time in a place."],
         params=[(["city", "location", "place", "timezone"], S, ["The city", "Where to tell the time"], "city")],
         asks=["What time is it in {city}?", "What is the time in {city}?", "Tell me the time in {city}.", "Time in {city}", "Do you know what time it is in {city} now?",
               "Please tell me the local time in {city}.", "How late is it in {city}?"],
         result={"time": "time"}, answers=["It is {time} in {city}."]),
    dict(names=["add", "add_numbers", "sum", "sum_two", "plus", "addition"],
         about=["Add two numbers.", "Returns the sum of two numbers", "Adds a and b."],
         params=[(["a", "x", "first", "left"], N, ["The first number", "First operand"], "int3"), (["b", "y", "second", "right"], N, ["The second number", "Second operand"], "int3b")],
         asks=["Add {a} and {b}.", "What is {a} plus {b}?", "Use the tool to add {a} and {b}.", "Sum {a} and {b}, please.", "What is the sum of {a} and {b}?", "{a} + {b}"],
         result={"result": "int4"}, answers=["The result is {result}.", ]),
    dict(names=["multiply", "multiply_numbers", "product", "times", "mul", "multiplication"],
         about=["Multiply two numbers.", "Returns the product of two numbers", "Multiplies a by b."],
         params=[(["a", "x", "first", "left"], N, ["The first number", "First factor"], "int3"), (["b", "y", "second", "right"], N, ["The second number", "Second factor"], "int3b")],
         asks=["Multiply {a} by {b}.", "What is {a} times {b}?", "Use the tool to multiply {a} and {b}.", "What is the product of {a} and {b}?", "{a} * {b}", "{a} x {b}"],
         result={"result": "int4"}, answers=["The result is {result}."]),
    dict(names=["calculator", "calculate", "calc", "evaluate", "math", "compute_expression"],
         about=["Evaluate an arithmetic expression.", "A calculator", "Computes the value of an expression."],
         params=[(["expression", "formula", "expr", "input"], S, ["The expression to evaluate", "An arithmetic expression"], "expr")],
         asks=["Calculate {expression}.", "What is {expression}?", "Use the calculator for {expression}.", "Compute {expression}", "Please work out {expression}."],
         result={"result": "int4"}, answers=["The result is {result}."]),
    dict(names=["send_email", "email", "mail", "send_mail", "write_email", "sendEmail", "compose_email"],
         about=["Send an email to a person.", "Sends an email", "Write and send a message by email."],
         params=[(["to", "recipient", "address"], S, ["The email address", "Who gets it"], "email"), (["subject", "title", "topic"], S, ["Subject line", "The subject"], "word"),
                 (["body", "text", "content"], S, ["What to write", "The text of the email"], "phrase?")],
         asks=["Send an email to {to} with the subject {subject}.", "Email {to} about {subject}.", "Write an email to {to}, subject {subject}, saying \"{body}\".",
               "Mail {to} with subject \"{subject}\" and text \"{body}\"."],
         result={"status": "=sent"}, answers=["I sent the email to {to}.", ]),
    dict(names=["send_message", "text_message", "send_sms", "message_contact", "sms", "sendMessage", "send_text"],
         about=["Send a text message to a contact.", "Sends a short message", "Text somebody."],
         params=[(["to", "name", "contact", "recipient"], S, ["Name of the contact", "Who gets the message"], "person"), (["message", "text", "content", "body"], S, ["The message", "What to say"], "phrase")],
         asks=["Send a message to {to}: {message}", "Text {to} \"{message}\".", "Tell {to} \"{message}\" in a message.", "Message {to} saying \"{message}\".", "Please send {to} the message \"{message}\"."],
         result={"status": "=delivered"}, answers=["I sent your message to {to}."]),
    dict(names=["set_alarm", "alarm", "create_alarm", "alarm_set", "setAlarm", "wake_up", "add_alarm"],
         about=["Set an alarm.", "Sets an alarm for a time", "Create an alarm at a given time."],
         params=[(["time", "at", "hour", "when"], S, ["The time, as HH:MM", "When it should ring"], "time"), (["label", "name", "note"], S, ["A label", "What it is for"], "word?")],
         asks=["Set an alarm for {time}.", "Wake me up at {time}.", "Please set an alarm at {time}.", "Alarm at {time} called {label}.", "Set an alarm for {time} with the label {label}.", "I need an alarm at {time}."],
         result={"status": "=ok"}, answers=["Your alarm is set for {time}."]),
    dict(names=["set_timer", "timer", "start_timer", "countdown", "create_timer", "startTimer"],
         about=["Start a timer.", "Starts a countdown", "Set a timer for some minutes."],
         params=[(["minutes", "duration", "length", "duration_minutes"], I, ["How many minutes", "Length in minutes"], "int2")],
         asks=["Wake me in {minutes} minutes.", "Tell me when {minutes} minutes are over.", "Ring in {minutes} minutes.", "Let me know in {minutes} minutes.", "Set a timer for {minutes} minutes.", "Start a {minutes} minute timer.", "Timer for {minutes} minutes please.", "Count down {minutes} minutes.", "Remind me in {minutes} minutes."],
         result={"status": "=started"}, answers=["The timer is running for {minutes} minutes."]),
    dict(names=["add_reminder", "create_reminder", "remind", "reminder", "set_reminder", "remind_me", "new_reminder"],
         about=["Create a reminder.", "Remind the user of something on a day", "Saves a reminder."],
         params=[(["text", "title", "what", "note"], S, ["What to remember", "The reminder"], "chore"), (["day", "date", "when", "weekday"], S, ["The day", "On which day"], "day")],
         asks=["I need to {text} on {day}, please remind me.", "I must {text} on {day}. Remind me.", "On {day} I have to {text}, remind me.", "Do not let me forget to {text} on {day}.", "Remind me to {text} on {day}.", "Please remind me on {day} to {text}.", "Set a reminder for {day}: {text}", "I have to {text} on {day}, remind me."],
         result={"status": "=saved"}, answers=["I will remind you to {text} on {day}."]),
    dict(names=["translate", "translate_text", "translator", "translation", "translate_word", "to_language"],
         about=["Translate a text into another language.", "Translates words", "Translation service."],
         params=[(["text", "phrase", "input", "word"], S, ["The text to translate", "What to translate"], "word"), (["language", "target", "to", "target_language"], S, ["The target language", "Language to translate into"], "language")],
         asks=["Translate \"{text}\" into {language}.", "How do you say {text} in {language}?", "Translate {text} to {language}.", "What is {text} in {language}?", "Please translate the word {text} into {language}."],
         result={"translation": "pseudo"}, answers=["In {language}, {text} is \"{translation}\"."]),
    dict(names=["get_stock_price", "stock_price", "stock", "quote", "lookup_stock", "share_price"],
         about=["Get the price of a stock.", "Returns the share price for a ticker symbol", "Stock market prices."],
         params=[(["symbol", "ticker", "stock", "company"], S, ["The ticker symbol", "Ticker, e.g. ABCD"], "ticker")],
         asks=["What is the stock price of {symbol}?", "How is {symbol} doing on the stock market?", "Price of {symbol} shares?", "Look up the stock {symbol}.", "Get me a quote for {symbol}."],
         result={"price": "price"}, answers=["The price of {symbol} is {price}."]),
    dict(names=["convert_currency", "currency", "exchange", "currency_converter", "convert_money", "exchange_money"],
         about=["Convert money from one currency to another.", "Currency conversion", "Exchange money."],
         params=[(["amount", "value", "sum"], N, ["How much", "The amount of money"], "int3"), (["from_currency", "from", "source", "base"], S, ["Currency code to convert from", "The source currency"], "currency"),
                 (["to_currency", "to", "target", "quote"], S, ["Currency code to convert to", "The target currency"], "currency2")],
         asks=["Convert {amount} {from_currency} to {to_currency}.", "How much is {amount} {from_currency} in {to_currency}?", "What is {amount} {from_currency} in {to_currency}?", "Change {amount} {from_currency} into {to_currency}, please."],
         result={"converted": "price"}, answers=["{amount} {from_currency} is {converted} {to_currency}."]),
    dict(names=["play_music", "play_song", "music", "play", "start_music", "playSong", "music_player"],
         about=["Play a song.", "Plays music by name", "Start playing a track."],
         params=[(["song", "title", "track", "name"], S, ["The song", "Title of the song"], "title"), (["artist", "by", "singer"], S, ["Who sings it", "The artist"], "fullname?")],
         asks=["I would like to hear {song}.", "Let me hear {song} by {artist}.", "Can you put on {song} by {artist}?", "Play something: {song}.", "Play {song}.", "Play the song {song} by {artist}.", "Put on {song}, please.", "I want to hear {song} by {artist}.", "Start the track \"{song}\".", "Can you play {song}?"],
         result={"status": "=playing"}, answers=["Now playing {song}."]),
    dict(names=["set_light", "light", "lights", "set_light_color", "lamp_color", "change_light", "light_colour"],
         about=["Set the colour of the light in a room.", "Change the light", "Controls lamps."],
         params=[(["room", "where", "area"], enum("kitchen", "bedroom", "bathroom", "office", "garage", "hall"), ["Which room", "The room"], "room"), (["color", "colour", "shade"], S, ["The colour", "Colour name"], "colour")],
         asks=["Make the light in the {room} {color}.", "Set the {room} light to {color}.", "Change the {room} lamp to {color}.", "I want {color} light in the {room}.", "Turn the {room} lights {color}."],
         result={"status": "=ok"}, answers=["The light in the {room} is {color} now."]),
    dict(names=["switch", "turn_on_off", "toggle_device", "power", "switch_device", "set_power", "device_switch"],
         about=["Turn a device on or off.", "Switch a device", "Controls the power of a device."],
         params=[(["device", "appliance", "name"], S, ["The device", "Which device"], "device"), (["state", "action", "mode"], enum("on", "off"), ["on or off", "The new state"], "onoff")],
         asks=["Could you turn the {device} {state}?", "Please turn {state} the {device}.", "{device} {state}", "I want the {device} {state}.", "Can you switch {state} the {device}?", "Turn {state} the {device}.", "Turn the {device} {state}.", "Switch {state} the {device}, please.", "Please switch the {device} {state}.", "Can you turn {state} the {device}?"],
         result={"status": "=ok"}, answers=["The {device} is {state} now."]),
    dict(names=["set_thermostat", "thermostat", "set_temperature", "heating", "heat", "set_heating"],
         about=["Set the temperature in the house.", "Controls the heating", "Thermostat control."],
         params=[(["degrees", "temperature", "value", "target"], I, ["Degrees", "The temperature"], "temp")],
         asks=["Thermostat at {degrees} degrees", "Set the thermostat to {degrees}.", "Put the heating on {degrees} degrees.", "Warm the house to {degrees}.", "Set the temperature to {degrees} degrees.", "Make it {degrees} degrees in here.", "Heat the house to {degrees} degrees.", "Thermostat to {degrees}.", "I want {degrees} degrees at home."],
         result={"status": "=ok"}, answers=["The temperature is set to {degrees} degrees."]),
    dict(names=["search", "web_search", "search_web", "google", "find_online", "lookup", "searchWeb", "internet_search"],
         about=["Search the web.", "Searches the internet for a query", "Find pages about something."],
         params=[(["query", "q", "text", "search_term", "keywords"], S, ["What to search for", "The search query"], "query")],
         asks=["Search the web for {query}.", "Search for {query}.", "Look up {query} online.", "Find something about {query} on the internet.", "Google {query}."],
         result={"results": "int2"}, answers=["I found {results} results for {query}."]),
    dict(names=["book_table", "reserve_table", "restaurant_booking", "reserve", "table_reservation", "bookTable"],
         about=["Book a table at a restaurant.", "Reserve a table", "Restaurant reservations."],
         params=[(["restaurant", "name", "place", "venue"], S, ["The restaurant", "Name of the restaurant"], "title"), (["people", "guests", "party_size", "seats"], I, ["How many people", "Number of guests"], "small"),
                 (["time", "at", "hour"], S, ["The time", "When"], "time?")],
         asks=["Book a table for {people} at {restaurant}.", "Reserve a table at {restaurant} for {people} people.", "Book a table for {people} people at {restaurant} at {time}.", "I need a table for {people} at {restaurant} at {time}."],
         result={"confirmation": "code"}, answers=["Your table at {restaurant} for {people} is booked; the code is {confirmation}."]),
    dict(names=["book_flight", "find_flights", "flight_search", "flights", "search_flights", "get_flights", "plane_tickets"],
         about=["Find flights between two cities.", "Search for flights", "Flight tickets."],
         params=[(["origin", "from", "from_city", "departure"], S, ["Where the flight starts", "City of departure"], "city"), (["destination", "to", "to_city", "arrival"], S, ["Where the flight goes", "City of arrival"], "city2"),
                 (["date", "day", "when"], S, ["The date", "Day of travel"], "date?")],
         asks=["Find flights from {origin} to {destination}.", "I want to fly from {origin} to {destination}.", "Find a flight from {origin} to {destination} on {date}.", "Flights from {origin} to {destination} on {date}", "Is there a flight from {origin} to {destination}?"],
         result={"flight": "code", "price": "price"}, answers=["Flight {flight} from {origin} to {destination} costs {price}."]),
    dict(names=["get_distance", "distance", "route", "distance_between", "how_far", "measure_distance"],
         about=["Get the distance between two cities.", "Distance in kilometres", "How far two places are apart."],
         params=[(["origin", "from", "start", "a"], S, ["The first city", "Start"], "city"), (["destination", "to", "end", "b"], S, ["The second city", "End"], "city2")],
         asks=["How far is it from {origin} to {destination}?", "What is the distance from {origin} to {destination}?", "Distance between {origin} and {destination}?", "How many kilometres are there between {origin} and {destination}?"],
         result={"kilometres": "int3"}, answers=["It is {kilometres} kilometres from {origin} to {destination}."]),
    dict(names=["add_to_cart", "cart_add", "buy", "order_item", "add_item", "order", "addToCart"],
         about=["Add a product to the shopping cart.", "Put something in the cart", "Order a product."],
         params=[(["product", "item", "name"], S, ["The product", "What to buy"], "product"), (["quantity", "count", "amount", "qty"], I, ["How many", "The number of pieces"], "small")],
         asks=["Please order {quantity} {product}.", "Get me {quantity} {product}.", "I need {quantity} {product}.", "{quantity} {product} for my cart, please.", "Add {quantity} of the {product} to my cart.", "Put {quantity} {product} in the cart.", "I want to buy {quantity} {product}.", "Order {quantity} {product}, please.", "Buy {quantity} {product}."],
         result={"total": "price"}, answers=["I added {quantity} {product} to your cart; the total is {total}."]),
    dict(names=["get_user", "find_user", "user_lookup", "user_info", "lookup_user", "getUser", "get_profile"],
         about=["Get a user by id.", "Returns the user with this id", "Look up a user account."],
         params=[(["id", "user_id", "number", "userId"], I, ["The user id", "Number of the user"], "int4")],
         asks=["Who is the user with id {id}?", "Show user {id}.", "Show me user number {id}.", "Which user has the id {id}?", "Profile of user {id}", "Get the user with id {id}.", "Who is user {id}?", "Look up user {id}.", "Show me the profile of user number {id}.", "Find user {id}, please."],
         result={"name": "fullname"}, answers=["User {id} is {name}."]),
    dict(names=["get_order", "order_status", "track_order", "where_is_order", "order_lookup", "trackOrder"],
         about=["Get the status of an order.", "Tracks an order by its number", "Look up an order."],
         params=[(["order_id", "id", "order", "number"], S, ["The order number", "Which order"], "code")],
         asks=["Where is my order {order_id}?", "What is the status of order {order_id}?", "Track order {order_id}.", "Has order {order_id} been shipped?", "Check my order {order_id}."],
         result={"status": "orderstate"}, answers=["Order {order_id} is {status}."]),
    dict(names=["create_event", "add_event", "calendar", "schedule_meeting", "new_event", "add_to_calendar", "createEvent"],
         about=["Add an event to the calendar.", "Create a calendar entry", "Schedule something."],
         params=[(["title", "name", "event", "summary"], S, ["What it is", "Title of the event"], "event"), (["date", "day", "on"], S, ["The date", "Which day"], "date"), (["time", "at", "start"], S, ["The time", "When it starts"], "time?")],
         asks=["New event: {title}, {date}, {time}.", "Calendar entry: {title}, {date}, {time}.", "Add an event: {title}, {date}.", "Event: {title}, {date}, at {time}.", "Make an event for {title} on {date} at {time}.", "Add {title} to my calendar on {date}.", "Schedule {title} on {date} at {time}.", "Put {title} in the calendar for {date} at {time}.", "Create an event: {title}, {date}, {time}.", "I have {title} on {date}, please add it to the calendar."],
         result={"status": "=created"}, answers=["I added {title} to your calendar on {date}."]),
    dict(names=["roll_dice", "dice", "throw_dice", "roll", "rollDice", "random_roll"],
         about=["Roll dice.", "Rolls a die with some number of sides", "Throw a die."],
         params=[(["sides", "faces", "max"], I, ["How many sides", "Number of faces"], "sides")],
         asks=["Roll a die with {sides} sides.", "Throw a {sides} sided die.", "Roll a {sides}-sided dice for me.", "Please roll a die that has {sides} sides."],
         result={"value": "small"}, answers=["You rolled a {value}."]),
    dict(names=["random_number", "random", "pick_number", "rand_between", "random_int", "randomNumber"],
         about=["Pick a random number between two bounds.", "Random number generator", "Returns a random number in a range."],
         params=[(["min", "low", "from", "start"], I, ["The smallest number", "Lower bound"], "small"), (["max", "high", "to", "end"], I, ["The largest number", "Upper bound"], "int3")],
         asks=["Pick a random number between {min} and {max}.", "Give me a random number from {min} to {max}.", "Random number between {min} and {max}, please.", "Choose a number from {min} to {max} at random."],
         result={"number": "int2"}, answers=["The number is {number}."]),
    dict(names=["read_file", "open_file", "cat", "get_file", "file_read", "readFile", "show_file"],
         about=["Read a file.", "Returns the text of a file", "Open a file and read it."],
         params=[(["path", "file", "filename", "file_path"], S, ["The path", "Which file"], "file")],
         asks=["Print {path}.", "Print the file {path}.", "Show the contents of {path}.", "Display {path}.", "What are the contents of {path}?", "Read the file {path}.", "Open {path}.", "Show me what is in {path}.", "What does {path} say?", "Print the contents of {path}."],
         result={"text": "phrase"}, answers=["The file {path} says: {text}."]),
    dict(names=["write_file", "save_file", "create_file", "file_write", "writeFile", "save_text"],
         about=["Write a text to a file.", "Save text in a file", "Creates a file."],
         params=[(["path", "file", "filename", "file_path"], S, ["The path", "Which file"], "file"), (["content", "text", "data"], S, ["What to write", "The text"], "phrase")],
         asks=["Write \"{content}\" into {path}.", "Store \"{content}\" in {path}.", "Put the text \"{content}\" in the file {path}.", "In {path}, write \"{content}\".", "Write \"{content}\" to the file {path}.", "Save \"{content}\" in {path}.", "Create the file {path} with the text \"{content}\".", "Put \"{content}\" into {path}."],
         result={"status": "=written"}, answers=["I wrote the text to {path}."]),
    dict(names=["define_word", "dictionary", "define", "word_meaning", "lookup_word", "get_definition"],
         about=["Look up a word in the dictionary.", "Returns the meaning of a word", "Dictionary."],
         params=[(["word", "term", "text"], S, ["The word", "Which word"], "word")],
         asks=["What does the word {word} mean?", "Define {word}.", "Look up the meaning of {word}.", "Definition of {word}?", "What is the meaning of {word}?"],
         result={"meaning": "phrase"}, answers=["The word {word} means: {meaning}."]),
    dict(names=["get_recipe", "recipe", "find_recipe", "recipe_search", "cook", "getRecipe"],
         about=["Find a recipe for a dish.", "Returns a recipe", "Recipes."],
         params=[(["dish", "food", "name", "meal"], S, ["The dish", "What to cook"], "food"), (["servings", "people", "portions"], I, ["For how many people", "Number of servings"], "small?")],
         asks=["Find a recipe for {dish}.", "How do I cook {dish} for {servings} people?", "Give me a recipe for {dish} for {servings} people.", "I want to make {dish}.", "Recipe for {dish}, please."],
         result={"minutes": "int2"}, answers=["I found a recipe for {dish}; it takes {minutes} minutes."]),
    dict(names=["call_contact", "phone_call", "call", "dial", "make_call", "phone", "ring"],
         about=["Call a contact by phone.", "Start a phone call", "Phones somebody."],
         params=[(["name", "contact", "person", "who"], S, ["The contact", "Whom to call"], "person")],
         asks=["Call {name} now.", "Can you call {name}?", "Give {name} a call.", "Make a call to {name}.", "Dial {name}.", "Call {name}.", "Phone {name}, please.", "Please call {name} for me.", "I want to talk to {name} on the phone.", "Ring {name}."],
         result={"status": "=calling"}, answers=["I am calling {name}."]),
    dict(names=["get_population", "population", "count_people", "city_population", "inhabitants"],
         about=["Get the population of a city.", "How many people live in a city", "Population numbers."],
         params=[CITY],
         asks=["How many people live in {city}?", "What is the population of {city}?", "Population of {city}?", "How big is {city}?"],
         result={"population": "int4"}, answers=["{population} people live in {city}."]),
    dict(names=["book_hotel", "hotel", "find_hotel", "hotel_search", "reserve_room", "hotels"],
         about=["Book a hotel room.", "Find a hotel in a city", "Hotel rooms."],
         params=[CITY, (["nights", "duration", "days"], I, ["How many nights", "Number of nights"], "small")],
         asks=["Book a hotel in {city} for {nights} nights.", "I need a hotel room in {city} for {nights} nights.", "Find a hotel in {city} for {nights} nights, please.", "Hotel in {city}, {nights} nights."],
         result={"hotel": "title", "price": "price"}, answers=["I booked the hotel {hotel} in {city} for {price}."]),
    dict(names=["set_volume", "volume", "change_volume", "sound_level", "setVolume"],
         about=["Set the volume.", "Changes how loud the sound is", "Volume control in percent."],
         params=[(["level", "percent", "volume", "value"], I, ["The volume in percent", "How loud"], "int2")],
         asks=["Set the volume to {level}.", "Volume {level} percent.", "Make the sound {level} percent.", "Turn the volume to {level}, please."],
         result={"status": "=ok"}, answers=["The volume is {level} percent now."]),
    dict(names=["add_note", "save_note", "note", "take_note", "create_note", "write_note", "notes_add"],
         about=["Save a note.", "Takes a note", "Write something down for later."],
         params=[(["text", "note", "content"], S, ["The note", "What to write down"], "phrase")],
         asks=["Write this down: {text}", "Make a note: \"{text}\"", "Keep the note \"{text}\".", "Remember as a note: {text}", "Take a note: {text}", "Write down \"{text}\".", "Save the note \"{text}\".", "Note: {text}", "Please note that {text}."],
         result={"status": "=saved"}, answers=["I saved your note."]),
]

VERBS = [  # verb, past participle
    ("create", "created"), ("delete", "deleted"), ("open", "opened"), ("close", "closed"), ("start", "started"), ("stop", "stopped"),
    ("archive", "archived"), ("print", "printed"), ("lock", "locked"), ("unlock", "unlocked"), ("approve", "approved"), ("cancel", "cancelled"),
    ("publish", "published"), ("check", "checked"), ("copy", "copied"), ("move", "moved"), ("rename", "renamed"), ("repair", "repaired"),
    ("reset", "reset"), ("pause", "paused"), ("resume", "resumed"), ("load", "loaded"), ("export", "exported"), ("import", "imported"),
    ("assign", "assigned"), ("ship", "shipped"), ("return", "returned"), ("paint", "painted"), ("clean", "cleaned"), ("test", "tested"),
    ("download", "downloaded"), ("upload", "uploaded"), ("install", "installed"), ("remove", "removed"), ("update", "updated"),
    ("verify", "verified"), ("sign", "signed"), ("mark", "marked"), ("count", "counted"), ("select", "selected"), ("hide", "hidden"),
    ("show", "shown"), ("share", "shared"), ("rate", "rated"), ("block", "blocked"), ("join", "joined"), ("leave", "left"), ("list", "listed"),
]
NOUNS = """invoice ticket door window playlist report account document task project meeting car room printer server folder image
video channel group contract parcel shipment payment refund coupon survey form page article comment post thread server
machine sensor camera robot drone boat train bus route map garden recipe course lesson exam class team player match game
level contact record table row column query backup session token key branch release build package module plugin theme
template letter card badge certificate license vehicle order product label tag queue job worker cluster node""".split()
PARAM_NAMES = {
    "int": ["id", "number", "code", "index", "count", "value", "{noun}_id", "{noun}_number", "amount", "level"],
    "str": ["name", "title", "label", "{noun}_name", "{noun}", "owner", "target", "key", "tag"],
}
DEVICES = """lamp heater fan radio television oven dishwasher kettle printer router camera alarm toaster fridge computer
speaker projector sprinkler humidifier fountain""".split()
ROOMS = "kitchen bedroom bathroom office garage hall".split()
CHORES = """call the bank|buy milk|water the plants|feed the cat|pay the rent|send the letter|clean the car|visit the dentist|
book the tickets|wash the windows|return the books|finish the report|walk the dog|bake a cake|fix the bike|order new shoes|
write to grandma|pick up the parcel|charge the phone|empty the bins|study for the exam|buy flowers|renew the passport|
cut the grass|take out the rubbish|check the oven|sign the form|pack the bags|tidy the desk|mend the fence""".replace("\n", "").split("|")
EVENTS = """lunch with {person}|a meeting with {person}|the dentist|a birthday party|dinner with {person}|football practice|
a job interview|the team meeting|a haircut|piano lesson|coffee with {person}|the school play|a phone call with {person}|
a doctor's appointment|yoga class|the book club|a trip to {city}|the concert|a wedding|movie night""".replace("\n", "").split("|")
PHRASES = """I will be late|see you at {time}|the meeting is on {day}|happy birthday|dinner is ready|call me back|
the {product} is broken|I am on my way|good luck with the exam|the train leaves at {time}|please buy {food}|we need more {food}|
thank you for the {product}|I am at home|the keys are under the {product}|meet me in {city}|{person} says hello|the code is {int4}|
see you on {day}|the door is open|I like {food}|the {animal} is hungry|buy {int2} {items}|do not forget the {product}|
I am in {city} until {day}|the party is on {day}|everything is fine|let us meet at {time}|{person} has the {product}|my flight is late""".replace("\n", "").split("|")

# For more descriptions: what each of TOOLS is about, in order.
KEYWORDS = """the weather|temperature and rain|weather in a city
the time of day|local time|clock time in a city
adding numbers|sums of two numbers|addition
multiplying numbers|products of two numbers|multiplication
arithmetic expressions|calculations|formulas
sending emails|email messages|writing mail
text messages|sending messages to contacts|messages to people
alarms|waking up at a time|alarm clocks
timers|counting down minutes|minutes to wait
reminders|remembering things to do|reminding of things on a day
translations|translating words into a language|foreign languages
stock prices|shares and stocks|the stock market
currencies|converting money|exchange of money
music|playing songs|songs and artists
lamps and colours of light|the colour of the light in a room|coloured lights
switching devices on and off|power of devices|turning things on and off
heating|the temperature at home|thermostats
searching the web|internet search|finding pages online
tables in restaurants|restaurant bookings|reserving tables
flights|flying from city to city|plane tickets
distances|how far cities are apart|kilometres between cities
shopping|products in the cart|buying products
users|finding a user by number|user profiles
orders|the state of an order|tracking orders
calendar events|the calendar|appointments and events
dice|rolling a die|throwing dice
random numbers|picking a number at random|chance numbers
reading files|the contents of a file|opening files
writing files|saving text in a file|creating files
word meanings|definitions of words|the dictionary
recipes|cooking a dish|recipes for meals
phone calls|calling people|ringing up contacts
population|the number of people in a city|inhabitants of a city
hotels|hotel rooms for some nights|rooms in a hotel
volume|loudness of the sound|how loud it is
notes|writing down a note|saving notes""".split("\n")
assert len(KEYWORDS) == len(TOOLS)
